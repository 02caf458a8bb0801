//! The binary `purser`: the command line and the agent behind it are in the library.

fn main() -> std::process::ExitCode {
    purser::cli::main(purser::run::run)
}
