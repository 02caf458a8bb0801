//! What happened between the agent and the runtimes, for the metrics. Plain numbers: the worker that owns
//! [`super::Containers`] adds, the asking thread reports through messages.

/// Counts since the start. Every reason exists from the start, at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Containers identified.
    pub identified: u64,
    /// Cgroups found to be the host's.
    pub host: u64,
    /// The cgroup was gone before its path could be found.
    pub cgroup_gone: u64,
    /// A bundle could not be understood.
    pub bundle_invalid: u64,
    /// A bundle did not belong to root and was not believed.
    pub bundle_untrusted: u64,
    /// Text or lists of a bundle were cut to their bounds.
    pub bundle_truncated: u64,
    /// Cgroups forgotten because there were too many.
    pub evicted: u64,
    /// The queue to the asking thread was full; the question is asked again later.
    pub queue_full: u64,
    /// A runtime answered.
    pub api_answered: u64,
    /// A runtime did not know the container (any more).
    pub api_not_found: u64,
    /// A runtime did not answer in time.
    pub api_timeout: u64,
    /// A runtime's socket could not be connected to, or the connection broke.
    pub api_unreachable: u64,
    /// A runtime answered with another error, or its store is damaged.
    pub api_error: u64,
    /// No image of the runtime closes the chain to the container's snapshot.
    pub chain_open: u64,
}

impl Counters {
    /// Every reason with its count, for a metric labelled by reason.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self {
            identified,
            host,
            cgroup_gone,
            bundle_invalid,
            bundle_untrusted,
            bundle_truncated,
            evicted,
            queue_full,
            api_answered,
            api_not_found,
            api_timeout,
            api_unreachable,
            api_error,
            chain_open,
        } = *self;
        [
            ("identified", identified),
            ("host", host),
            ("cgroup_gone", cgroup_gone),
            ("bundle_invalid", bundle_invalid),
            ("bundle_untrusted", bundle_untrusted),
            ("bundle_truncated", bundle_truncated),
            ("evicted", evicted),
            ("queue_full", queue_full),
            ("api_answered", api_answered),
            ("api_not_found", api_not_found),
            ("api_timeout", api_timeout),
            ("api_unreachable", api_unreachable),
            ("api_error", api_error),
            ("chain_open", chain_open),
        ]
        .into_iter()
    }
}
