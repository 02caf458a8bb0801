//! No record, however damaged or hostile, makes `decode` panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|record: &[u8]| {
    let _ = purser::decode::decode(record);
    // Most random bytes fail at the header; give the rest a chance.
    if record.len() >= 32 {
        let mut record = record.to_vec();
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        record[..2].copy_from_slice(&1_u16.to_ne_bytes());
        record[2] %= 20;
        record[3] = 0;
        record[4..8].copy_from_slice(&length.to_ne_bytes());
        let _ = purser::decode::decode(&record);
    }
});
