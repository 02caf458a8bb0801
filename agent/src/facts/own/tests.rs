//! What is said to be an event's own is a function of what is hashed of it: whatever else is changed in a record, it stays.

use std::cell::OnceCell;
use std::fmt::Write as _;

use bumpalo::Bump;
use proptest::prelude::*;
use purser_rules::Catalogue;

use super::*;
use crate::decode::decode;
use crate::event::Event;
use crate::facts::{Lineage, Names};
use crate::process::ProcessTable;
use crate::sample::records::{Record, any_record};
use crate::sample::{Fake, container};

/// Every argument, and whose it is.
const EVERYTHING: u8 = 0xff;
const KEY: [u64; 2] = [3, 4];
/// What a parameter's place begins with, which no name does.
const PLACE: &str = "#";

/// Every field with every argument that matters to an event.
fn all_fields(event: EventType) -> Vec<(FieldId, String)> {
    let catalogue = Catalogue::builtin();
    let mut all = Vec::new();
    for field in catalogue.fields() {
        all.push((field.id, String::new()));
    }
    // Parameters also by their places, and one place more than there are.
    for place in 0..=code(event).event().params.len() {
        all.push((FieldId::EVT_ARG, format!("{PLACE}{place}")));
    }
    for param in code(event).event().params {
        all.push((FieldId::EVT_ARG, param.name.to_owned()));
        all.push((FieldId::EVT_RAWARG, param.name.to_owned()));
    }
    for key in ["src", "dst", "ID", "exe", "nothing"] {
        all.push((FieldId::EVT_ABSPATH, key.to_owned()));
        all.push((FieldId::EVT_ARG, key.to_owned()));
    }
    all
}

/// What is known of an event without what is not its own, under each of its names.
fn known(event: &Event, other: bool) -> Vec<String> {
    let (mut table, arena, outside) = (ProcessTable::default(), Bump::new(), Fake::default());
    let process = table.apply(event, &outside);
    let container = (other && !event.header.of_host).then(|| container(false));
    let names = Names::of(event);
    let mut facts = Vec::new();
    for name in names.iter() {
        let sight = Sight {
            number: u64::from(other),
            event,
            process: &process,
            lineage: Lineage::Table(&table),
            container: container.as_ref(),
            name,
            epoch_offset_ns: i64::from(other),
            started_boot_ns: 0,
            previous_boot_ns: 0,
            outside: &outside,
            arena: &arena,
            user: OnceCell::new(),
            clock: purser_rules::format::Clock::default(),
        };
        let own = OwnSight::new(&sight, EVERYTHING);
        for (id, key) in all_fields(event.header.event) {
            let arg = match key.strip_prefix(PLACE).map(str::parse) {
                Some(place) => Arg::Index(place.expect("a number")),
                None if key.is_empty() => Arg::None,
                None => Arg::Key(key.as_bytes()),
            };
            let field = FieldRef { id, arg };
            let mut fact = format!("{id:?} {key} {:?}", own.fact(field));
            if let Fact::Many(count) = own.fact(field) {
                for nth in 0..count {
                    write!(fact, " {:?}", own.element(field, nth)).expect("into a text");
                }
            }
            facts.push(fact);
        }
    }
    facts
}

/// Changes whatever the hash does not notice.
fn unhashed_changed(record: &Record, host: bool, noise: &[u32]) -> Record {
    let hash = record.hash(host, EVERYTHING, KEY);
    let mut changed = record.clone();
    let words = changed.fixed.bytes_mut().len() / 2;
    for at in 0..words {
        let mut tried = changed.clone();
        let word = &mut tried.fixed.bytes_mut()[2 * at..2 * at + 2];
        let noise = noise[at % noise.len()].rotate_left(at as u32 % 32);
        word.copy_from_slice(&(noise as u16).to_ne_bytes());
        if tried.hash(host, EVERYTHING, KEY) == hash {
            changed = tried;
        }
    }
    // A call cannot succeed in a way that its result does not allow.
    changed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn own_facts_are_functions_of_what_is_hashed(
        record in any_record(),
        host: bool,
        noise in prop::collection::vec(any::<u32>(), 7),
    ) {
        let changed = unhashed_changed(&record, host, &noise);
        let event = decode(&record.bytes(1, 1, host, EVERYTHING)).expect("a record");
        let other = decode(&changed.bytes(9, 1, host, EVERYTHING)).expect("as good a record");
        prop_assert_ne!(&event, &other, "nothing is left to be changed");
        let (one, two) = (known(&event, false), known(&other, true));
        for (one, two) in one.iter().zip(&two) {
            prop_assert_eq!(one, two, "\n{:?}\n{:?}", &event, &other);
        }
        prop_assert_eq!(one.len(), two.len(), "the names differ");
    }
}

#[test]
fn what_rules_ask_most_is_known() {
    let yes = |event, field: FieldId| assert_eq!(own(event, field.plain()), Own::Yes, "{event:?} {field:?}");
    for field in [FieldId::FD_NAME, FieldId::FD_DIRECTORY, FieldId::EVT_IS_OPEN_WRITE, FieldId::EVT_TYPE] {
        yes(EventType::Openat, field);
    }
    for field in [FieldId::FD_TYPECHAR, FieldId::FD_L4PROTO, FieldId::EVT_RES] {
        yes(EventType::Connect, field);
    }
    let argument = |event, name: &str| own(event, FieldRef { id: FieldId::EVT_ARG, arg: Arg::Key(name.as_bytes()) });
    assert_eq!(argument(EventType::Ptrace, "request"), Own::Argument(0));
    assert_eq!(argument(EventType::Bpf, "cmd"), Own::Argument(0));
    assert_eq!(argument(EventType::Prctl, "option"), Own::Argument(0));
    assert_eq!(argument(EventType::FailedExecve, "filename"), Own::Yes);
    for of_process in ["uid", "comm", "pid", "cwd", "trusted_exepath", "cap_effective", "exe_ino"] {
        assert_eq!(argument(EventType::FailedExecve, of_process), Own::No(PROCESS), "{of_process}");
    }
    assert!(matches!(own(EventType::Openat, FieldId::PROC_NAME.plain()), Own::No(PROCESS)));
    assert!(matches!(own(EventType::Connect, FieldId::FD_SIP_NAME.plain()), Own::No(LATER)));
    assert_eq!(own(EventType::Connect, FieldId::CONTAINER_ID.plain()), Own::OfHost);
}
