use std::time::{Duration, Instant};
use purser::sensor::*;
fn main() {
    tracing_subscriber::fmt().with_env_filter("purser=debug").with_writer(std::io::stderr).init();
    let mut s = match Sensor::start(&SensorConfig::default(), &Policy::everything()) { Ok(s)=>s, Err(e)=>{ eprintln!("ERR {e}"); return } };
    println!("{:?} {:?}", s.tier(), s.hooks());
    let end = Instant::now() + Duration::from_secs(std::env::args().nth(1).and_then(|a|a.parse().ok()).unwrap_or(3));
    let mut n = 0;
    while Instant::now() < end { s.poll(Duration::from_millis(500), &mut |r| { n += 1; if n < 40 { println!("{} {:?}", r.len(), String::from_utf8_lossy(&r[160..])); } }).unwrap(); }
    println!("{n} {:?}", s.losses());
}
