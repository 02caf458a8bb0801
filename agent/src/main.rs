//! The binary `purser`: the command line, and nothing else.

fn main() -> std::process::ExitCode {
    purser::cli::main(purser::run::run, purser::run::record)
}
