//! No recording, however damaged or hostile, makes a replay panic. The fuzzer's bytes are a whole file, and then the content
//! of a frame whose checksum fits: else it would hardly ever come past that.
#![no_main]

use std::io;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use purser::recording::replay::{Choice, replay};
use purser::recording::{Entry, Start, format};

/// A header, and a frame with a beginning.
static OPENING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let start = Start { rules: 1, config: "{rule_matching: all}".to_owned(), ..Start::default() };
    let rule = b"- rule: Any\n  desc: x\n  condition: evt.num > 0 and manifest.verdict != x\n  output: \"%evt.args %proc.cmdline \
                 %user.name %container.image\"\n  priority: INFO\n";
    let entries = [Entry::Start(Box::new(start)), Entry::Rules("rules".to_owned(), rule)];
    let plain: Vec<u8> = entries.iter().flat_map(|entry| postcard::to_allocvec(entry).unwrap_or_default()).collect();
    [&format::Header::current().bytes()[..], &frame(0, &plain)].concat()
});

fn frame(number: u64, plain: &[u8]) -> Vec<u8> {
    let stored = zstd::bulk::compress(plain, 1).unwrap_or_default();
    format::frame(number, &stored, plain.len(), false).unwrap_or_default()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = replay(bytes, &Choice::default(), io::sink());
    let file = [&OPENING[..], &frame(1, bytes)].concat();
    let _ = replay(&file[..], &Choice::default(), io::sink());
});
