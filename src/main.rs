//! The `edge` program; see the library's first page for the map.

use std::process::ExitCode;

fn main() -> ExitCode {
    edge::cli::main()
}
