//! Purser's development tasks as a library: the test rig and the driver of the agent that the demo, the benchmarks and the
//! agent's root tests share. It knows the agent only by its command line.

pub mod agent;
pub mod rig;
