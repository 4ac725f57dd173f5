//! Healthy members of one room who hear everything and keep a log of it, while something else goes on.
//!
//! It promises that every member's call ends with OK, and the log of each. Members stay until they have heard as many
//! messages as were said; messages of loose senders are logged and not counted.

use std::time::Duration;

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tonic::Code;

use super::{
    PATIENCE,
    client::{Member, RequestStream, ResponseStream},
    history::{Id, Log, Stay},
    within,
};

/// Until [`Crowd::leaves`] says how many messages there were.
const STAY: usize = usize::MAX;

/// How long everyone may take to hear everything; the whole of `tests/order.rs` is in it.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(60);

pub struct Crowd {
    goal: watch::Sender<usize>,
    attending: Vec<JoinHandle<Log>>,
}

impl Crowd {
    pub fn new() -> Self {
        Self { goal: watch::Sender::new(STAY), attending: Vec::new() }
    }

    /// A member who only listens, to the end. It must have joined before the first message.
    pub fn listens(&mut self, member: Member, name: &str) {
        let (hand_over, handed_over) = oneshot::channel();
        let _ = hand_over.send(member.requests);
        self.attends(Attendance {
            responses: member.responses,
            requests: Some(handed_over),
            log: Log::of(name, Stay::Part),
            echo: watch::Sender::new(0),
            own: None,
        });
    }

    /// A member who speaks and listens. It must have joined before the first message.
    pub fn speaks(&mut self, member: Member, sender: u16) -> Speaker {
        let (hand_over, handed_over) = oneshot::channel();
        let echo = watch::Sender::new(0);
        let requests = Some((member.requests, hand_over));
        let speaker = Speaker { sender, published: 0, requests, echo: echo.subscribe() };
        self.attends(Attendance {
            responses: member.responses,
            requests: Some(handed_over),
            log: Log::of_sender(sender, Stay::Part),
            echo,
            own: Some(sender),
        });
        speaker
    }

    /// Everyone half-closes after that many messages and hears the rest. The logs of all.
    /// Who misses some leaves without them in the end, so that the history can tell which.
    pub async fn leaves(self, messages: usize) -> Vec<Log> {
        self.goal.send_replace(messages);
        let goal = self.goal.clone();
        let patience = tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS_PATIENCE).await;
            goal.send_replace(0);
        });
        let mut logs = Vec::new();
        for member in self.attending {
            logs.push(member.await.expect("a member panicked, see above"));
        }
        patience.abort();
        logs
    }

    fn attends(&mut self, attendance: Attendance) {
        let goal = self.goal.subscribe();
        self.attending.push(tokio::spawn(attendance.until(goal)));
    }
}

struct Attendance {
    responses: ResponseStream,
    /// Comes when the speaker has nothing more to say; never, if it leaves by itself.
    requests: Option<oneshot::Receiver<RequestStream>>,
    log: Log,
    echo: watch::Sender<u32>,
    own: Option<u16>,
}

impl Attendance {
    async fn until(self, mut goal: watch::Receiver<usize>) -> Log {
        let Self { mut responses, mut requests, mut log, echo, own } = self;
        let (mut received, mut echoed) = (0, 0);
        let ending = loop {
            if received >= *goal.borrow_and_update()
                && let Some(handed_over) = requests.take()
                && let Ok(mut requests) = handed_over.await
            {
                requests.half_close();
                log.is_whole();
            }
            let each = |text: &[u8]| {
                let id = log.receive(text).filter(|id| !id.is_loose());
                received += usize::from(id.is_some());
                echoed += u32::from(own.is_some() && id.map(Id::sender) == own);
            };
            tokio::select! {
                ending = responses.receive(each) => if let Some(ending) = ending { break ending },
                Ok(()) = goal.changed() => {}
            }
            if echoed != *echo.borrow() {
                echo.send_replace(echoed);
            }
        };
        assert_eq!(ending.code(), Some(Code::Ok), "{log:?} ends: {ending:?}");
        log
    }
}

pub struct Speaker {
    sender: u16,
    published: u32,
    /// With the way to hand it over to the attendance; `None` when that has happened.
    requests: Option<(RequestStream, oneshot::Sender<RequestStream>)>,
    echo: watch::Receiver<u32>,
}

impl Speaker {
    pub fn published(&self) -> u32 {
        self.published
    }

    /// Says its next `messages`, each with `padding` bytes of ballast, in as few frames as it can.
    pub async fn publishes(&mut self, messages: u32, padding: usize) {
        let next = self.published..self.published + messages;
        let texts: Vec<String> = next.map(|sequence| Id::new(self.sender, sequence).text(padding)).collect();
        let (requests, _) = self.requests.as_mut().expect("only `stays` takes it");
        requests.publish_all(&texts).await;
        self.published += messages;
    }

    /// Waits until it has heard itself, but for the last few messages.
    pub async fn receives_own(&mut self, but_for: u32) {
        let due = self.published.saturating_sub(but_for);
        let echo = self.echo.wait_for(|echoed| *echoed >= due);
        // An error means that the call is over, of which the attendance complains better.
        let _ = within(PATIENCE, "the speaker's own echo", echo).await;
    }

    /// Says no more and listens to the end with the others.
    pub fn stays(mut self) {
        if let Some((requests, hand_over)) = self.requests.take() {
            let _ = hand_over.send(requests);
        }
    }

    /// Half-closes at once: it hears up to its own last message.
    pub fn leaves(self) {
        drop(self);
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        if let Some((requests, _)) = &mut self.requests {
            requests.half_close();
        }
    }
}

/// A member who came late and goes early: the log of the `messages` in between, fewer if it is `over` before.
pub async fn passes_by(mut member: Member, messages: usize, mut over: watch::Receiver<bool>) -> Log {
    let mut log = Log::of("a passer-by", Stay::Part);
    while log.len() < messages {
        tokio::select! {
            ending = member.responses.receive(|text| { log.receive(text); }) => {
                assert_eq!(ending, None, "a passer-by was sent away");
            }
            _ = over.wait_for(|over| *over) => break,
        }
    }
    log
}
