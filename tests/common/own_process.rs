//! A process of its own for a test of what a whole process has one of: its logger, its allocator, its exit code.

use std::{
    any, env,
    process::{self, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Set in the process that runs one test's body.
const CHILD: &str = "CHATROOM_TEST_OWN_PROCESS";

/// Exit code of a body that returned. Neither that of a failed test nor that of a run without any test.
const RETURNED: i32 = 42;

/// Runs `body` in a new process of this test binary that runs nothing else, and panics if it does.
///
/// Must be called by the `#[test]` function itself, whose name the new process finds it by.
pub fn runs_alone<F: FnOnce()>(patience: Duration, body: F) {
    let output = output_of(patience, body);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(RETURNED), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The same for a `body` that may end its process: what it wrote, and its exit code.
///
/// Its output has to fit a pipe.
pub fn output_of<F: FnOnce()>(patience: Duration, body: F) -> Output {
    if env::var_os(CHILD).is_some() {
        body();
        process::exit(RETURNED);
    }
    // As in "load::log_memory::counted_bytes_are_allocated::{{closure}}".
    let (_binary, path) = any::type_name::<F>().split_once("::").unwrap();
    let test = path.trim_end_matches("::{{closure}}");
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > patience {
            child.kill().unwrap();
            panic!("not within {patience:?}: the end of {test}, {:?}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}
