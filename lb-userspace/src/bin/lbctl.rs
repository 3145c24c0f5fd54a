//! The operator's tool; see [`lb_userspace::ctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::ctl::main()
}
