//! Runs scenarios one after the other, and keeps a panic in one from ending the others.

use super::{Failure, Files, Outcome, Scenario, World};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

thread_local! {
    /// What the last panic of this thread said, and where.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what a panic says for the verdict, in place of printing it: the stack catches those over a connection, and the
/// verdict names them with the seed.
pub fn keep_panics() {
    set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        PANIC.with(|panic| *panic.borrow_mut() = Some(text));
    }));
}

/// Runs one scenario to its end; `watch` is shown its world before it begins.
pub fn run(scenario: Scenario, files: &Files, watch: impl FnOnce(&World)) -> Outcome {
    PANIC.with(|panic| panic.borrow_mut().take());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let world = World::new(scenario, files);
        watch(&world);
        world.run()
    }));
    let said = PANIC.with(|panic| panic.borrow_mut().take());
    let mut outcome = outcome.unwrap_or_else(|_| {
        let failure = Some(Failure::new("panic", "a panic that nobody caught".to_owned()));
        Outcome { failure, frames: 0, virtual_us: 0, counters: Default::default(), harmed: Default::default() }
    });
    if let (Some(failure), Some(said)) = (&mut outcome.failure, said)
        && failure.kind == "panic"
    {
        failure.what = said;
    }
    outcome
}
