//! Addresses of the domain names that rules mention: `fd.sip.name = kubernetes.default.svc.cluster.local` means that the
//! server's address is one of that name's. As upstream (libs `dns_manager.h`), no address is ever looked up backwards:
//! the names are resolved, again and again, on threads of their own, and the worker reads the last table that is whole.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// How soon a name is asked for again, at first, after a new answer and after a failure.
const SOON: Duration = Duration::from_secs(10);
/// How late, when its answer stays the same: the time doubles from one answer to the next.
const LATE: Duration = Duration::from_secs(320);
/// How long an address counts after an answer last had it: names with many addresses answer with some of them, and
/// programs use an answer for a while. While a name cannot be resolved, none of its addresses is forgotten.
const KEPT: Duration = Duration::from_secs(640);
/// Names resolved at the same time: one whose server does not answer takes many seconds.
const THREADS: usize = 4;
/// Names asked for at most; further ones are counted as `ignored`.
const MAX_NAMES: usize = 1_000;
/// Addresses kept of one name.
const MAX_ADDRESSES: usize = 256;

type Resolve = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Lookups by result, and names by what is known of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DomainCounts {
    /// Lookups with an answer.
    pub resolved: u64,
    /// Lookups without.
    pub failed: u64,
    /// Names that have addresses now.
    pub known: u64,
    /// Names that have none (yet): rules that compare with them cannot fire.
    pub unknown: u64,
    /// Names beyond the bound, never asked for.
    pub ignored: u64,
}

/// The names and what they resolve to.
pub struct Domains {
    shared: Arc<Shared>,
    /// What the worker reads; replaced by [`refresh`](Self::refresh).
    current: Arc<Table>,
    threads: usize,
}

/// Names of each address, in the order of the names.
type Table = HashMap<IpAddr, Vec<Bytes>>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    resolve: Box<Resolve>,
    resolved: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct State {
    names: HashMap<String, Name>,
    /// A table that the worker has not taken yet.
    ready: Option<Arc<Table>>,
    ignored: u64,
    stop: bool,
}

struct Name {
    due: Instant,
    interval: Duration,
    busy: bool,
    /// With the time of the last answer that had it.
    addresses: HashMap<IpAddr, Instant>,
}

impl std::fmt::Debug for Domains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Domains").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Default for Domains {
    /// Asks the machine's resolver (`getaddrinfo`).
    fn default() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }
}

impl Domains {
    /// Asks `resolve`, which may block.
    pub fn new(resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            resolve: Box::new(resolve),
            resolved: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), current: Arc::default(), threads: 0 }
    }

    /// From now on these names, and no others; what is known of those that stay, stays. Never blocks.
    pub fn watch(&mut self, names: &[String]) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let wanted: HashSet<&String> = names.iter().take(MAX_NAMES).collect();
        state.ignored = names.len().saturating_sub(MAX_NAMES) as u64;
        state.names.retain(|name, _| wanted.contains(name));
        for name in wanted {
            let new = || Name { due: now, interval: SOON, busy: false, addresses: HashMap::new() };
            state.names.entry(name.clone()).or_insert_with(new);
        }
        state.publish();
        let needed = state.names.len().min(THREADS);
        drop(state);
        self.shared.changed.notify_all();
        while self.threads < needed {
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new().name("domains".to_owned()).spawn(move || shared.work());
            if let Err(error) = started {
                tracing::warn!(%error, "no thread to resolve the domain names that rules mention");
                return;
            }
            self.threads += 1;
        }
    }

    /// Takes in what the threads have found.
    pub fn refresh(&mut self) {
        if let Some(table) = self.shared.lock().ready.take() {
            self.current = table;
        }
    }

    /// The watched names that `address` belongs to. An IPv4 address that an IPv6 socket uses is the same address.
    pub fn of(&self, address: IpAddr) -> &[Bytes] {
        self.current.get(&address.to_canonical()).map_or(&[], Vec::as_slice)
    }

    /// See [`DomainCounts`].
    pub fn counts(&self) -> DomainCounts {
        let state = self.shared.lock();
        let known = state.names.values().filter(|name| !name.addresses.is_empty()).count() as u64;
        DomainCounts {
            resolved: self.shared.resolved.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            known,
            unknown: state.names.len() as u64 - known,
            ignored: state.ignored,
        }
    }
}

impl Drop for Domains {
    fn drop(&mut self) {
        // A thread that waits for a server ends when that has answered; nobody waits for it.
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What it guards is whole after a panic, too: every change is one insertion or removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(name) = self.next() {
            let answer = (self.resolve)(&name);
            let count = if answer.is_ok() { &self.resolved } else { &self.failed };
            count.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = &answer {
                tracing::debug!(name, %error, "a domain name that rules mention cannot be resolved");
            }
            let mut state = self.lock();
            if state.answered(&name, answer, Instant::now()) {
                state.publish();
            }
        }
    }

    /// The next name that is due; waits for one. `None` at the end.
    fn next(&self) -> Option<String> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let now = Instant::now();
            let first = state.names.iter_mut().filter(|(_, name)| !name.busy).min_by_key(|(_, name)| name.due);
            let wait = match first {
                Some((text, name)) if name.due <= now => {
                    name.busy = true;
                    return Some(text.clone());
                }
                Some((_, name)) => name.due - now,
                None => LATE,
            };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// Whether the addresses of any name changed.
    fn answered(&mut self, name: &str, answer: io::Result<Vec<IpAddr>>, now: Instant) -> bool {
        // Nobody wants it any more.
        let Some(name) = self.names.get_mut(name) else { return false };
        name.busy = false;
        let before: HashSet<IpAddr> = name.addresses.keys().copied().collect();
        let mut is_new = answer.is_err();
        if let Ok(addresses) = answer {
            name.addresses.retain(|_, seen| now.saturating_duration_since(*seen) < KEPT);
            for address in addresses.into_iter().map(|address| address.to_canonical()) {
                if name.addresses.len() < MAX_ADDRESSES || name.addresses.contains_key(&address) {
                    is_new |= !before.contains(&address);
                    name.addresses.insert(address, now);
                }
            }
        }
        name.interval = if is_new { SOON } else { (name.interval * 2).min(LATE) };
        name.due = now + name.interval;
        name.addresses.len() != before.len() || !before.iter().all(|address| name.addresses.contains_key(address))
    }

    fn publish(&mut self) {
        let mut names: Vec<(&String, &Name)> = self.names.iter().collect();
        names.sort_unstable_by_key(|(text, _)| *text);
        let mut table = Table::new();
        for (text, name) in names {
            let text = Bytes::copy_from_slice(text.as_bytes());
            for address in name.addresses.keys() {
                table.entry(*address).or_default().push(text.clone());
            }
        }
        self.ready = Some(Arc::new(table));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn until(domains: &mut Domains, there: impl Fn(&Domains) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !there(domains) {
            assert!(Instant::now() < deadline, "{domains:?}");
            std::thread::sleep(Duration::from_millis(2));
            domains.refresh();
        }
    }

    fn known(domains: &Domains, address: &str) -> Vec<String> {
        let names = domains.of(address.parse().unwrap());
        names.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
    }

    #[test]
    fn names_of_an_address_are_those_that_resolve_to_it() {
        let mut domains = Domains::new(|name| match name {
            "a.test" => Ok(vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
            "b.test" => Ok(vec!["192.0.2.1".parse().unwrap()]),
            _ => Err(io::Error::other("no such name")),
        });
        domains.watch(&names(&["b.test", "a.test", "gone.test"]));
        until(&mut domains, |domains| domains.counts().resolved == 2 && domains.counts().failed >= 1);
        until(&mut domains, |domains| known(domains, "192.0.2.1").len() == 2);
        assert_eq!(known(&domains, "192.0.2.1"), ["a.test", "b.test"]);
        assert_eq!(known(&domains, "::ffff:192.0.2.1"), ["a.test", "b.test"]);
        assert_eq!(known(&domains, "2001:db8::1"), ["a.test"]);
        assert_eq!(known(&domains, "192.0.2.2"), [""; 0]);
        let counts = domains.counts();
        assert_eq!((counts.known, counts.unknown, counts.ignored), (2, 1, 0));

        domains.watch(&names(&["b.test"]));
        domains.refresh();
        assert_eq!(known(&domains, "192.0.2.1"), ["b.test"], "the others are forgotten");
    }

    #[test]
    fn a_resolver_that_hangs_holds_up_nobody() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let mut domains = Domains::new(move |name| {
            if name == "hangs.test" {
                let _ = held.lock().unwrap().recv();
            }
            Ok(vec!["192.0.2.7".parse().unwrap()])
        });
        domains.watch(&names(&["hangs.test", "quick.test"]));
        until(&mut domains, |domains| known(domains, "192.0.2.7") == ["quick.test"]);
        drop(release);
        until(&mut domains, |domains| known(domains, "192.0.2.7").len() == 2);
    }

    #[test]
    fn an_answer_counts_for_a_while_and_is_asked_for_less_often_when_it_stays() {
        let mut state = State::default();
        let start = Instant::now();
        let name = Name { due: start, interval: SOON, busy: true, addresses: HashMap::new() };
        state.names.insert("a.test".to_owned(), name);
        let (one, two): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut now = start;
        assert!(state.answered("a.test", Ok(vec![one]), now));
        let mut waits = Vec::new();
        for _ in 0..7 {
            waits.push((state.names["a.test"].due - now).as_secs());
            now = state.names["a.test"].due;
            assert!(!state.answered("a.test", Ok(vec![one]), now));
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 320]);

        assert!(state.answered("a.test", Ok(vec![two]), now), "one answer of several");
        assert_eq!(state.names["a.test"].addresses.len(), 2);
        assert_eq!(state.names["a.test"].due - now, SOON);
        assert!(!state.answered("a.test", Err(io::Error::other("no answer")), now + 10 * KEPT));
        assert_eq!(state.names["a.test"].addresses.len(), 2, "a dead server changes nothing");
        assert!(state.answered("a.test", Ok(vec![two]), now + KEPT));
        assert_eq!(state.names["a.test"].addresses.keys().collect::<Vec<_>>(), [&two]);
    }

    #[test]
    fn there_is_a_bound_and_it_is_told() {
        let mut domains = Domains::new(|_| Ok(Vec::new()));
        let many: Vec<String> = (0..MAX_NAMES + 3).map(|at| format!("{at}.test")).collect();
        domains.watch(&many);
        assert_eq!(domains.counts().ignored, 3);
        domains.watch(&[]);
        assert_eq!(domains.counts(), DomainCounts { resolved: domains.counts().resolved, ..DomainCounts::default() });
    }

    #[test]
    fn the_machines_own_resolver_knows_numbers_and_localhost() {
        let mut domains = Domains::default();
        domains.watch(&names(&["localhost", "192.0.2.9", "no\0name"]));
        until(&mut domains, |domains| known(domains, "192.0.2.9") == ["192.0.2.9"]);
        until(&mut domains, |domains| !known(domains, "127.0.0.1").is_empty());
        until(&mut domains, |domains| domains.counts().failed > 0);
    }
}
