//! A task that panics says what came of it all the same: whoever waits for that would wait for ever.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// What a future comes to; `otherwise` where it panics, which is a bug of ours. Nothing that it borrows mutably may matter
/// afterwards.
pub(super) async fn caught<T>(otherwise: T, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let came_to = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    });
    came_to.await.unwrap_or_else(|| {
        tracing::error!("a task of this node panicked");
        otherwise
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer_too() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            assert_eq!(caught(1, async { 2 }).await, 2);
            let late = async {
                tokio::task::yield_now().await;
                // As a panic, but that it prints nothing.
                std::panic::resume_unwind(Box::new("for the test"))
            };
            assert_eq!(caught(1, late).await, 1);
        });
    }
}
