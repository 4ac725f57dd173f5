//! The task behind a session: it has the call, and gets another when that is lost.
//!
//! Promises that each event is handed to the caller once and in order, also when it came on two calls; that each
//! publish is sent until it is acknowledged; and that nothing is read from the call while the caller is behind.

use super::Error;
use super::back_off::Waits;
use super::call::{Call, Opener, Way};
use super::caller::Caller;
use super::error::{is_lost, told};
use super::outbox::Outbox;
use super::place::Place;
use super::types::{Ack, Disconnected, Event, Gap, Goodbye, Incoming};
use crate::wire::v1::join_response::Response;
use crate::wire::v1::{JoinRequest, JoinResponse};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};

pub(super) struct Task {
    pub(super) opener: Opener,
    pub(super) place: Place,
    pub(super) caller: Caller,
    pub(super) outbox: Outbox,
    pub(super) waits: Waits,
}

/// How long after a gap what is not acknowledged is sent again: whoever is behind may get more gaps, and what was not in
/// this one is acknowledged meanwhile.
const AFTER_GAP: Duration = Duration::from_secs(1);

/// How long a session that nobody has any more waits for the server to see that it leaves.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a call ended.
enum CallEnd {
    /// The session has nothing left to do.
    Finished,
    /// It goes on in another call: at once, since this one cannot tell what is still to know.
    Renewed,
    /// It goes on in another call when it gets one; the server may have told when.
    Lost(Status, Option<Duration>),
    Failed(Error),
}

/// Whether the call may be half-closed.
enum HalfClose {
    NotYet,
    Now,
    /// Never: whether everything was heard up to the session's own last message is not to be learnt from this call.
    Useless,
}

impl Task {
    /// Lives as long as the session, beginning with this call.
    pub(super) async fn run(mut self, call: Call) {
        let end = self.live(call).await;
        self.outbox.end(end.as_ref().err().unwrap_or(&Error::Ended));
        self.caller.end(end).await;
    }

    async fn live(&mut self, mut call: Call) -> Result<(), Error> {
        loop {
            let (ended, lived) = self.converse(call).await;
            self.waits.had_a_call(lived);
            let next = match ended {
                CallEnd::Finished => return Ok(()),
                CallEnd::Failed(error) => return Err(error),
                CallEnd::Renewed => self.renew().await?,
                CallEnd::Lost(..) if self.is_done() => return Ok(()),
                CallEnd::Lost(status, told) => self.come_back(status, told).await?,
            };
            match next {
                Some(next) => call = next,
                None => return Ok(()),
            }
        }
    }

    /// One call, from its welcome to its end, and how long it lived.
    async fn converse(&mut self, mut call: Call) -> (CallEnd, Duration) {
        self.outbox.start_over(call.welcome.max_message_bytes);
        let mut conversation =
            Conversation { task: self, has_said_news: false, goodbye: None, resend_at: None, patience: None };
        let end = loop {
            if let Some(end) = conversation.step(&mut call).await {
                break end;
            }
        };
        (end, call.since.elapsed())
    }

    /// Gets a call after one was lost; `None` when nobody waits for it any more.
    async fn come_back(
        &mut self,
        mut why: Status,
        mut told_by: Option<Duration>,
    ) -> Result<Option<Call>, Error> {
        let lost = Instant::now();
        loop {
            let wait = self.waits.next(told_by, &mut rand::rng());
            let Some(retry_in) = self.waits.allow(lost.elapsed(), wait) else {
                return Err(Error::GaveUp { after: lost.elapsed(), last: Box::new(why) });
            };
            self.caller.hand(Incoming::Disconnected(Disconnected { why, retry_in }));
            if self.meanwhile(sleep(retry_in)).await.is_none() {
                return Ok(None);
            }
            match self.reopen().await {
                Some(Err(status)) if is_lost(&status, None) => {
                    told_by = told(&status, None);
                    why = status;
                }
                Some(Err(status)) => return Err(Error::of(status)),
                Some(Ok(call)) => return Ok(Some(call)),
                None => return Ok(None),
            }
        }
    }

    /// Gets a call at once.
    async fn renew(&mut self) -> Result<Option<Call>, Error> {
        match self.reopen().await {
            Some(Err(status)) if is_lost(&status, None) => {
                let told = told(&status, None);
                self.come_back(status, told).await
            }
            Some(opened) => opened.map(Some).map_err(Error::of),
            None => Ok(None),
        }
    }

    /// Tries to go on in a new call; `None` when nobody waits for it any more.
    async fn reopen(&mut self) -> Option<Result<Call, Status>> {
        let may_owe = !self.outbox.is_empty() || !self.place.has_heard_itself();
        let join = self.place.resume(self.outbox.is_finished() && may_owe);
        let opened = self.meanwhile(self.opener.clone().open(join)).await?;
        if let Ok(call) = &opened {
            self.caller.hand(Incoming::Reconnected(call.welcome.clone()));
        }
        Some(opened)
    }

    /// Does this, and takes in what is said meanwhile; `None` when nobody waits for it any more.
    async fn meanwhile<T>(&mut self, something: impl Future<Output = T>) -> Option<T> {
        let mut something = std::pin::pin!(something);
        loop {
            if self.is_abandoned() {
                return None;
            }
            tokio::select! {
                done = &mut something => return Some(done),
                () = self.outbox.take_in(), if !self.outbox.is_finished() => {}
                () = self.caller.attend(), if !self.caller.is_gone() => {}
            }
        }
    }

    /// Whether the session has said and heard everything, so that a lost call is no loss.
    fn is_done(&self) -> bool {
        self.says_no_more() && self.outbox.is_empty() && self.place.has_heard_itself()
    }

    /// Whether nobody would notice if the session did nothing more.
    fn is_abandoned(&self) -> bool {
        let says_no_more = self.outbox.is_finished() && !self.outbox.is_awaited();
        self.caller.is_gone() && says_no_more
    }

    /// Whether the caller has finished. Who only listens never does.
    fn says_no_more(&self) -> bool {
        self.opener.way == Way::Join && self.outbox.is_finished()
    }
}

/// What happens on one call.
struct Conversation<'a> {
    task: &'a mut Task,
    /// Something was said here that was never said before: the server knows the session's last message.
    has_said_news: bool,
    goodbye: Option<Goodbye>,
    /// When what is not acknowledged is sent again, because acknowledgements may lie in a gap.
    resend_at: Option<Instant>,
    /// When the call is dropped although the server has not ended it, because nobody has the session any more.
    patience: Option<Instant>,
}

impl Conversation<'_> {
    /// Waits for the next thing to happen, and does it.
    async fn step(&mut self, call: &mut Call) -> Option<CallEnd> {
        let task = &mut *self.task;
        // Nobody hears, and everything that was said is there.
        if task.caller.is_gone() && task.outbox.is_finished() && task.outbox.is_empty() {
            if task.opener.way == Way::Subscribe {
                return Some(CallEnd::Finished);
            }
            call.said = None;
            self.patience.get_or_insert_with(|| Instant::now() + LAST_WORDS);
        }
        if call.said.is_some() {
            match self.half_close(call) {
                HalfClose::NotYet => {}
                HalfClose::Now => call.said = None,
                HalfClose::Useless => return Some(CallEnd::Renewed),
            }
        }
        let Task { outbox, caller, .. } = &mut *self.task;
        tokio::select! {
            heard = call.heard.message(), if !caller.is_behind() => return self.hear(heard, call),
            () = outbox.take_in(), if !outbox.is_finished() => {}
            () = caller.attend(), if !caller.is_gone() => {}
            room = room(call.said.as_ref()), if call.said.is_some() && outbox.has_unsent() => {
                if let (Some(room), Some((request, is_news))) = (room, outbox.next()) {
                    room.send(request);
                    self.has_said_news |= is_news;
                    self.task.place.speaks_as(&call.welcome.connection_id);
                }
            }
            () = until(self.resend_at), if self.resend_at.is_some() => {
                self.resend_at = None;
                outbox.resend();
            }
            () = until(self.patience), if self.patience.is_some() => return Some(CallEnd::Finished),
        }
        None
    }

    fn half_close(&self, call: &Call) -> HalfClose {
        let Task { outbox, place, .. } = &*self.task;
        if !outbox.is_finished() || outbox.has_unsent() || self.resend_at.is_some() {
            return HalfClose::NotYet;
        }
        if self.has_said_news || !outbox.was_used() {
            return HalfClose::Now;
        }
        // The server does not know which was this session's last message: it was said on another call. So everything
        // up to it must be here before the server is told that there is nothing more.
        if !outbox.is_empty() {
            HalfClose::NotYet
        } else if place.has_heard_itself() {
            HalfClose::Now
        } else if call.is_filtered {
            HalfClose::Useless
        } else {
            HalfClose::NotYet
        }
    }

    fn hear(&mut self, heard: Result<Option<JoinResponse>, Status>, call: &Call) -> Option<CallEnd> {
        match heard {
            Ok(Some(response)) => self.take(response, call).err().map(CallEnd::Failed),
            Ok(None) => Some(self.end(Status::ok("the server ended the call"), call)),
            Err(status) => Some(self.end(status, call)),
        }
    }

    fn take(&mut self, response: JoinResponse, call: &Call) -> Result<(), Error> {
        let Task { caller, outbox, place, .. } = &mut *self.task;
        match response.response {
            Some(Response::Event(event)) => {
                let event = Event::try_from(event)?;
                if place.is_news(&event) {
                    caller.hand(Incoming::Event(event));
                }
            }
            Some(Response::Ack(ack)) => {
                let acked = Ack::new(ack.position, ack.repeated)?;
                place.owes(&acked.position);
                outbox.acknowledge(&ack.reference, acked);
            }
            Some(Response::Gap(gap)) => {
                let gap = Gap::try_from(gap)?;
                place.skip(&gap);
                if outbox.has_sent() {
                    // Not at once: one gap may follow another.
                    self.resend_at.get_or_insert_with(|| Instant::now() + AFTER_GAP);
                }
                caller.hand(Incoming::Gap(gap));
            }
            Some(Response::Presence(presence)) => {
                caller.hand(Incoming::Presence(presence));
            }
            Some(Response::Goodbye(goodbye)) => {
                let goodbye = Goodbye::new(goodbye, place.cursor());
                if call.is_filtered {
                    place.leave(&goodbye);
                }
                caller.hand(Incoming::Goodbye(goodbye.clone()));
                self.goodbye = Some(goodbye);
            }
            Some(Response::Welcome(_)) => return Err(Error::Contract("a second welcome")),
            // Of a later version.
            None => {}
        }
        Ok(())
    }

    /// The call has ended with this status.
    fn end(&mut self, status: Status, call: &Call) -> CallEnd {
        let goodbye = self.goodbye.as_ref();
        let is_ok = status.code() == Code::Ok;
        let has_half_closed = call.said.is_none() && self.task.says_no_more();
        let has_left = has_half_closed && goodbye.is_some_and(|goodbye| goodbye.reason == "left");
        if has_left && !self.task.outbox.is_empty() {
            // The acknowledgements were lost in a gap: said again, it is acknowledged again.
            return CallEnd::Renewed;
        }
        if self.task.outbox.is_empty() {
            // The status itself may have been lost after the server's last words.
            let is_sent_away = is_ok && goodbye.is_some_and(|goodbye| goodbye.retry_after.is_none());
            if has_left || is_sent_away || (is_ok && has_half_closed) {
                return CallEnd::Finished;
            }
        }
        if !is_lost(&status, goodbye) {
            return CallEnd::Failed(Error::Refused(Box::new(status)));
        }
        let told = told(&status, goodbye);
        // An end that nobody asked for.
        let why = if is_ok { Status::unavailable("the server ended the call") } else { status };
        CallEnd::Lost(why, told)
    }
}

/// Until then; for ever, if there is no such time.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// Room for one request; `None` when the call is over, which what is heard will tell.
async fn room(said: Option<&mpsc::Sender<JoinRequest>>) -> Option<mpsc::Permit<'_, JoinRequest>> {
    match said?.reserve().await {
        Ok(room) => Some(room),
        // Not again and again.
        Err(_) => std::future::pending().await,
    }
}
