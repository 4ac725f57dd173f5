//! Paginated lists.

use super::metadata::in_room;
use super::types::{Event, Gap, Member, Room};
use super::{Client, Error};
use crate::wire::v1;
use futures_util::stream;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_stream::Stream;

/// Members or rooms per page: the server's maximum, so that there are few pages.
const PAGE_SIZE: i32 = 1000;

/// The items of a list; the next page is fetched when the current one is used up. Ends after an error.
pub struct Pages<T> {
    items: Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>,
}

/// One item of a room's retained history.
#[derive(Clone, Debug, PartialEq)]
pub enum HistoryItem {
    /// A retained event.
    Event(Event),
    /// Events of the requested range that are not retained.
    Gap(Gap),
}

/// One page, and the token of the next.
struct Page<T> {
    items: VecDeque<T>,
    next: String,
}

impl<T: Send + 'static> Pages<T> {
    fn new<F>(fetch: impl FnMut(String) -> F + Send + 'static) -> Self
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

pub(super) fn events(client: Client, query: v1::ListEventsRequest) -> Pages<HistoryItem> {
    Pages::new(move |page_token| {
        let client = client.clone();
        let request = in_room(&query.room, v1::ListEventsRequest { page_token, ..query.clone() });
        async move {
            let page = client.unary(async |mut service| service.list_events(request).await).await?;
            let gap = page.gap.map(|gap| Gap::try_from(gap).map(HistoryItem::Gap));
            let events = page.events.into_iter().map(|event| Event::try_from(event).map(HistoryItem::Event));
            Ok(Page {
                items: gap.into_iter().chain(events).collect::<Result<_, _>>()?,
                next: page.next_page_token,
            })
        }
    })
}

pub(super) fn members(client: Client, room: String) -> Pages<Member> {
    Pages::new(move |page_token| {
        let query = v1::ListMembersRequest { room: room.clone(), page_size: PAGE_SIZE, page_token };
        let query = in_room(&room, query);
        let client = client.clone();
        async move {
            let page = client.unary(async |mut service| service.list_members(query).await).await?;
            Ok(Page { items: page.members.into(), next: page.next_page_token })
        }
    })
}

pub(super) fn rooms(client: Client) -> Pages<Room> {
    Pages::new(move |page_token| {
        let client = client.clone();
        let query = v1::ListRoomsRequest { page_size: PAGE_SIZE, page_token };
        async move {
            let page = client.unary(async |mut service| service.list_rooms(query).await).await?;
            let rooms = page.rooms.into_iter().map(Room::try_from).collect::<Result<_, _>>()?;
            Ok(Page { items: rooms, next: page.next_page_token })
        }
    })
}
