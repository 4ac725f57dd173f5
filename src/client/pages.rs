//! Paginated lists.

use super::error::Error;
use futures_util::stream;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_stream::Stream;

/// The items of a list; the next page is fetched when the current one is used up. Ends after an error.
pub struct Pages<T> {
    items: Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>,
}

/// One page, and the token of the next.
pub(super) struct Page<T> {
    pub(super) items: VecDeque<T>,
    pub(super) next: String,
}

impl<T: Send + 'static> Pages<T> {
    /// Fetches each page by the token that the one before it had; the first token is empty.
    pub(super) fn new<F>(fetch: impl FnMut(String) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Page<T>, Error>> + Send,
    {
        let first = Page { items: VecDeque::new(), next: String::new() };
        let items =
            stream::try_unfold((first, true, fetch), |(mut page, mut is_first, mut fetch)| async move {
                loop {
                    if let Some(item) = page.items.pop_front() {
                        return Ok(Some((item, (page, is_first, fetch))));
                    }
                    if page.next.is_empty() && !is_first {
                        return Ok(None);
                    }
                    page = fetch(page.next).await?;
                    is_first = false;
                }
            });
        Self { items: Box::pin(items) }
    }

    /// The next item; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Refused`], such as `NOT_FOUND` for an unknown room; [`Error::Lost`].
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        std::future::poll_fn(|cx| self.items.as_mut().poll_next(cx)).await.transpose()
    }

    /// Collects all remaining items into memory.
    ///
    /// # Errors
    /// As [`Pages::next`].
    pub async fn all(mut self) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await? {
            all.push(item);
        }
        Ok(all)
    }
}

impl<T> Stream for Pages<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}
