//! The task behind a session: it owns the call, and opens another when that is lost.
//!
//! Delivers each event once and in order, even if two calls carry it; sends each publish until it is acknowledged; reads
//! nothing from the call while the receiver's queue is full.

use super::backoff::Backoff;
use super::connector::{CallKind, Connector, OpenCall};
use super::delivery::Delivery;
use super::error::Error;
use super::outbox::Outbox;
use super::progress::Progress;
use super::retry::{final_error, is_retryable, retry_delay};
use super::types::{Ack, Disconnected, Event, Gap, Goodbye, Incoming};
use crate::wire::v1::join_response::Response;
use crate::wire::v1::{JoinRequest, JoinResponse};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};

pub(super) struct Task {
    pub(super) connector: Connector,
    pub(super) progress: Progress,
    pub(super) delivery: Delivery,
    pub(super) outbox: Outbox,
    pub(super) backoff: Backoff,
}

/// How long after a gap the unacknowledged publishes are resent. A slow session may get several gaps in a row, and
/// publishes outside the gap are acknowledged meanwhile.
const RESEND_AFTER_GAP: Duration = Duration::from_secs(1);

/// How long an abandoned session waits for the server to end its half-closed call.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How a call ended.
enum CallEnd {
    /// The session has nothing left to do.
    Finished,
    /// The session continues in another call at once, since this call cannot provide what is missing.
    Reopen,
    /// The session reconnects, at the earliest after the server's delay.
    Lost(Status, Option<Duration>),
    Failed(Error),
}

/// Whether to half-close the call.
enum HalfClose {
    NotYet,
    Now,
    /// This call cannot show whether everything up to the session's own last message was received.
    Impossible,
}

impl Task {
    /// Runs the session, starting with this call.
    pub(super) async fn run(mut self, call: OpenCall) {
        let end = self.run_calls(call).await;
        self.outbox.end(end.as_ref().err().unwrap_or(&Error::Ended));
        self.delivery.end(end).await;
    }

    async fn run_calls(&mut self, mut call: OpenCall) -> Result<(), Error> {
        loop {
            let (end, lifetime) = self.drive_call(call).await;
            self.backoff.record_call(lifetime);
            let next = match end {
                CallEnd::Finished => return Ok(()),
                CallEnd::Failed(error) => return Err(error),
                CallEnd::Reopen => self.reconnect_now().await?,
                CallEnd::Lost(..) if self.is_done() => return Ok(()),
                CallEnd::Lost(status, retry_after) => self.reconnect(status, retry_after).await?,
            };
            match next {
                Some(next) => call = next,
                None => return Ok(()),
            }
        }
    }

    /// Drives one call from its welcome to its end; returns how it ended and how long it lasted.
    async fn drive_call(&mut self, mut call: OpenCall) -> (CallEnd, Duration) {
        self.outbox.begin_call(call.welcome.max_message_bytes);
        let mut active =
            ActiveCall { task: self, has_sent_new: false, goodbye: None, resend_at: None, leave_by: None };
        let end = loop {
            if let Some(end) = active.step(&mut call).await {
                break end;
            }
        };
        (end, call.since.elapsed())
    }

    /// Opens a call after one was lost, with backoff; `None` if the session is abandoned meanwhile.
    async fn reconnect(
        &mut self,
        mut why: Status,
        mut retry_after: Option<Duration>,
    ) -> Result<Option<OpenCall>, Error> {
        let lost = Instant::now();
        loop {
            let wait = self.backoff.next_delay(retry_after, &mut rand::rng());
            let Some(retry_in) = self.backoff.allow(lost.elapsed(), wait) else {
                return Err(Error::GaveUp { after: lost.elapsed(), last: Box::new(why) });
            };
            self.delivery.deliver(Incoming::Disconnected(Disconnected { why, retry_in }));
            if self.drive_until(sleep(retry_in)).await.is_none() {
                return Ok(None);
            }
            match self.resume().await {
                Some(Err(status)) if is_retryable(&status, None) => {
                    retry_after = retry_delay(&status, None);
                    why = status;
                }
                Some(Err(status)) => return Err(final_error(status)),
                Some(Ok(call)) => return Ok(Some(call)),
                None => return Ok(None),
            }
        }
    }

    /// Opens a call without a delay.
    async fn reconnect_now(&mut self) -> Result<Option<OpenCall>, Error> {
        match self.resume().await {
            Some(Err(status)) if is_retryable(&status, None) => {
                let retry_after = retry_delay(&status, None);
                self.reconnect(status, retry_after).await
            }
            Some(opened) => opened.map(Some).map_err(final_error),
            None => Ok(None),
        }
    }

    /// Makes one attempt to resume in a new call; `None` if the session is abandoned meanwhile.
    async fn resume(&mut self) -> Option<Result<OpenCall, Status>> {
        let may_miss_own = !self.outbox.is_empty() || !self.progress.has_received_own();
        let join = self.progress.resume(self.outbox.is_finished() && may_miss_own);
        let opened = self.drive_until(self.connector.clone().open(join)).await?;
        if let Ok(call) = &opened {
            self.delivery.deliver(Incoming::Reconnected(call.welcome.clone()));
        }
        Some(opened)
    }

    /// Awaits `future` while accepting publishes and delivering queued items; `None` if the session is abandoned meanwhile.
    async fn drive_until<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        loop {
            if self.is_abandoned() {
                return None;
            }
            tokio::select! {
                output = &mut future => return Some(output),
                () = self.outbox.receive(), if !self.outbox.is_finished() => {}
                () = self.delivery.flush(), if !self.delivery.is_closed() => {}
            }
        }
    }

    /// Whether the session has published and received everything, so that it need not reconnect.
    fn is_done(&self) -> bool {
        self.has_finished_publishing() && self.outbox.is_empty() && self.progress.has_received_own()
    }

    /// Whether the caller has dropped both halves and all receipts.
    fn is_abandoned(&self) -> bool {
        let has_finished_publishing = self.outbox.is_finished() && !self.outbox.has_waiters();
        self.delivery.is_closed() && has_finished_publishing
    }

    /// Whether the caller has dropped its publishers. Never true for a subscription.
    fn has_finished_publishing(&self) -> bool {
        self.connector.kind == CallKind::Join && self.outbox.is_finished()
    }
}

/// The state of the current call.
struct ActiveCall<'a> {
    task: &'a mut Task,
    /// Whether a publish was first sent on this call, so that the server knows the session's last message.
    has_sent_new: bool,
    goodbye: Option<Goodbye>,
    /// When to resend unacknowledged publishes, because a gap may contain their acknowledgements.
    resend_at: Option<Instant>,
    /// When to drop the call of an abandoned session even if the server has not ended it.
    leave_by: Option<Instant>,
}

impl ActiveCall<'_> {
    /// Handles the next event of the call; returns the call's end if this was it.
    async fn step(&mut self, call: &mut OpenCall) -> Option<CallEnd> {
        let task = &mut *self.task;
        // The receiver is gone and everything is acknowledged.
        if task.delivery.is_closed() && task.outbox.is_finished() && task.outbox.is_empty() {
            if task.connector.kind == CallKind::Subscribe {
                return Some(CallEnd::Finished);
            }
            call.requests = None;
            self.leave_by.get_or_insert_with(|| Instant::now() + LEAVE_TIMEOUT);
        }
        if call.requests.is_some() {
            match self.half_close(call) {
                HalfClose::NotYet => {}
                HalfClose::Now => call.requests = None,
                HalfClose::Impossible => return Some(CallEnd::Reopen),
            }
        }
        let Task { outbox, delivery, .. } = &mut *self.task;
        tokio::select! {
            received = call.responses.message(), if !delivery.is_blocked() => return self.on_received(received, call),
            () = outbox.receive(), if !outbox.is_finished() => {}
            () = delivery.flush(), if !delivery.is_closed() => {}
            slot = request_slot(call.requests.as_ref()), if call.requests.is_some() && outbox.has_unsent() => {
                if let (Some(slot), Some((request, is_first))) = (slot, outbox.next_unsent()) {
                    slot.send(request);
                    self.has_sent_new |= is_first;
                    self.task.progress.record_own_connection(&call.welcome.connection_id);
                }
            }
            () = sleep_until_some(self.resend_at), if self.resend_at.is_some() => {
                self.resend_at = None;
                outbox.resend();
            }
            () = sleep_until_some(self.leave_by), if self.leave_by.is_some() => return Some(CallEnd::Finished),
        }
        None
    }

    fn half_close(&self, call: &OpenCall) -> HalfClose {
        let Task { outbox, progress, .. } = &*self.task;
        if !outbox.is_finished() || outbox.has_unsent() || self.resend_at.is_some() {
            return HalfClose::NotYet;
        }
        if self.has_sent_new || !outbox.was_used() {
            return HalfClose::Now;
        }
        // The session's last message was published on another call, so the server does not know it. Everything up to
        // that message must be received before the half-close.
        if !outbox.is_empty() {
            HalfClose::NotYet
        } else if progress.has_received_own() {
            HalfClose::Now
        } else if call.is_filtered {
            HalfClose::Impossible
        } else {
            HalfClose::NotYet
        }
    }

    fn on_received(
        &mut self,
        received: Result<Option<JoinResponse>, Status>,
        call: &OpenCall,
    ) -> Option<CallEnd> {
        match received {
            Ok(Some(response)) => self.handle(response, call).err().map(CallEnd::Failed),
            Ok(None) => Some(self.end(Status::ok("the server ended the call"), call)),
            Err(status) => Some(self.end(status, call)),
        }
    }

    fn handle(&mut self, response: JoinResponse, call: &OpenCall) -> Result<(), Error> {
        let Task { delivery, outbox, progress, .. } = &mut *self.task;
        match response.response {
            Some(Response::Event(event)) => {
                let event = Event::try_from(event)?;
                if progress.accept(&event) {
                    delivery.deliver(Incoming::Event(event));
                }
            }
            Some(Response::Ack(ack)) => {
                let acked = Ack::new(ack.position, ack.repeated)?;
                progress.expect_own(&acked.position);
                outbox.acknowledge(&ack.reference, acked);
            }
            Some(Response::Gap(gap)) => {
                let gap = Gap::try_from(gap)?;
                progress.skip(&gap);
                if outbox.has_sent() {
                    // Not at once: one gap may follow another.
                    self.resend_at.get_or_insert_with(|| Instant::now() + RESEND_AFTER_GAP);
                }
                delivery.deliver(Incoming::Gap(gap));
            }
            Some(Response::Presence(presence)) => {
                delivery.deliver(Incoming::Presence(presence));
            }
            Some(Response::Goodbye(goodbye)) => {
                let goodbye = Goodbye::new(goodbye, progress.cursor());
                if call.is_filtered {
                    progress.leave(&goodbye);
                }
                delivery.deliver(Incoming::Goodbye(goodbye.clone()));
                self.goodbye = Some(goodbye);
            }
            Some(Response::Welcome(_)) => return Err(Error::Contract("a second welcome")),
            // Of a later version.
            None => {}
        }
        Ok(())
    }

    /// Decides what follows from the status of an ended call.
    fn end(&mut self, status: Status, call: &OpenCall) -> CallEnd {
        let goodbye = self.goodbye.as_ref();
        let is_ok = status.code() == Code::Ok;
        let has_half_closed = call.requests.is_none() && self.task.has_finished_publishing();
        let has_left = has_half_closed && goodbye.is_some_and(|goodbye| goodbye.reason == "left");
        if has_left && !self.task.outbox.is_empty() {
            // The acknowledgements were lost in a gap: a resend is acknowledged again.
            return CallEnd::Reopen;
        }
        if self.task.outbox.is_empty() {
            // The status itself may have been lost after the goodbye.
            let is_dismissed = is_ok && goodbye.is_some_and(|goodbye| goodbye.retry_after.is_none());
            if has_left || is_dismissed || (is_ok && has_half_closed) {
                return CallEnd::Finished;
            }
        }
        if !is_retryable(&status, goodbye) {
            return CallEnd::Failed(Error::Refused(Box::new(status)));
        }
        let retry_after = retry_delay(&status, goodbye);
        // The session did not ask for this end.
        let why = if is_ok { Status::unavailable("the server ended the call") } else { status };
        CallEnd::Lost(why, retry_after)
    }
}

/// Sleeps until `then`; for ever if it is `None`.
async fn sleep_until_some(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// Room for one request; pends for ever if the call has ended, which the receive side reports.
async fn request_slot(requests: Option<&mpsc::Sender<JoinRequest>>) -> Option<mpsc::Permit<'_, JoinRequest>> {
    match requests?.reserve().await {
        Ok(slot) => Some(slot),
        // Pends, so that the select loop does not spin.
        Err(_) => std::future::pending().await,
    }
}
