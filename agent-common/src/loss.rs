//! What the programs could not deliver, by stage and reason. Each variant is a slot of a per-CPU array.

macro_rules! losses {
    ($( $(#[$doc:meta])* $variant:ident = $slot:literal, $stage:literal, $reason:literal; )*) => {
        /// A reason for which an event, or a fact of one, was lost in the kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Loss {
            $( $(#[$doc])* $variant = $slot, )*
        }

        impl Loss {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The stage, as a metric label: `kernel` lost the event whole, `kernel_fact` lost a part of it.
            pub const fn stage(self) -> &'static str {
                match self { $( Self::$variant => $stage, )* }
            }

            /// The reason, as a metric label.
            pub const fn reason(self) -> &'static str {
                match self { $( Self::$variant => $reason, )* }
            }
        }
    };
}

losses! {
    /// No room in the ring: the record was dropped.
    RingFull = 0, "kernel", "ring_full";
    /// A program of the same family was interrupted on this CPU and holds the scratch buffer.
    ScratchBusy = 1, "kernel", "scratch_busy";
    /// No policy was set, or a map lookup that cannot fail failed.
    NoState = 2, "kernel", "no_state";
    /// The descriptor that the call returned was closed or replaced before its exit.
    FileGone = 3, "kernel_fact", "file_gone";
    /// The name as asked for could not be read from the task's memory.
    NameUnreadable = 4, "kernel_fact", "name_unreadable";
    /// argv could not be read from the new program's memory.
    ArgvUnreadable = 5, "kernel_fact", "argv_unreadable";
    /// The environment could not be read from the new program's memory.
    EnvUnreadable = 6, "kernel_fact", "env_unreadable";
    /// A path has more components, or more bytes, than are carried.
    PathTruncated = 7, "kernel_fact", "path_truncated";
    /// Too many `io_uring` requests were under way: the name as asked for was forgotten.
    IoUringNameForgotten = 8, "kernel_fact", "io_uring_name_forgotten";
    /// A connect's address could not be read.
    AddressUnreadable = 9, "kernel_fact", "address_unreadable";
    /// The ring was filling up, and what tells of processes goes before what tells of files: refused before it was put
    /// together.
    BackPressure = 10, "kernel", "back_pressure";
    /// What was sent or received could not be read from the task's memory.
    DataUnreadable = 11, "kernel_fact", "data_unreadable";
}

impl Loss {
    /// Slots of the counter array.
    pub const SLOTS: u32 = 16;

    /// Whether it loses an event whole that a program had begun to tell of. Each takes a running number of its processor,
    /// so that these losses and the gaps in the numbers are equal.
    pub const fn leaves_gap(self) -> bool {
        matches!(self, Self::RingFull | Self::ScratchBusy | Self::BackPressure)
    }
}

/// How full the ring may be, in eighths, for events to be let in. What is frequent gives way first, and what the process
/// table is built from is let in while there is room at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillLimit;

impl FillLimit {
    /// Opens of files.
    pub const OPENS: u64 = 6;
    /// Connects and other calls.
    pub const CALLS: u64 = 7;
    /// Programs, forks, ends, cgroups.
    pub const PROCESSES: u64 = 8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_distinct_and_fit_the_array() {
        let mut seen = [false; Loss::SLOTS as usize];
        for loss in Loss::ALL {
            let slot = &mut seen[*loss as usize];
            assert!(!*slot, "{loss:?} shares its slot");
            *slot = true;
        }
    }
}
