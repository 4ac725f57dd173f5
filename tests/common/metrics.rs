//! The metrics listener as a scraper sees it: a GET by hand, and the text form as series and their values.
//!
//! It promises that a line which is not of the text form is a panic. It knows no metric.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{PATIENCE, within};

/// An HTTP answer; its connection is closed.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    within(PATIENCE, path, async {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    })
    .await
}

/// All series of one scrape.
#[derive(Debug)]
pub struct Scrape {
    series: BTreeMap<String, f64>,
    helps: BTreeSet<String>,
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    pub async fn of(addr: SocketAddr) -> Self {
        let answer = get(addr, "/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Self::parse(&answer.body)
    }

    fn parse(text: &str) -> Self {
        let mut scrape = Self { series: BTreeMap::new(), helps: BTreeSet::new(), kinds: BTreeMap::new() };
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(!words.is_empty() && scrape.helps.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value = value.parse().unwrap();
                assert!(scrape.series.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        scrape
    }

    /// The value of exactly this series.
    pub fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no {series} in {self:#?}"))
    }

    /// The sum over all series of this name whose labels contain `fragment`.
    pub fn sum_of(&self, name: &str, fragment: &str) -> f64 {
        let wanted = |series: &str| name_of(series) == name && series[name.len()..].contains(fragment);
        self.series.iter().filter(|(series, _)| wanted(series)).map(|(_, value)| value).sum()
    }

    pub fn sum(&self, name: &str) -> f64 {
        self.sum_of(name, "")
    }

    /// Each series' name and labels.
    pub fn series(&self) -> BTreeSet<&str> {
        self.series.keys().map(String::as_str).collect()
    }

    pub fn helps(&self) -> &BTreeSet<String> {
        &self.helps
    }

    /// Each metric's type.
    pub fn kinds(&self) -> &BTreeMap<String, String> {
        &self.kinds
    }

    /// The metric that each series belongs to.
    pub fn metrics(&self) -> BTreeSet<&str> {
        self.series.keys().map(|series| self.metric_of(series)).collect()
    }

    fn metric_of<'a>(&self, series: &'a str) -> &'a str {
        let name = name_of(series);
        let parts = ["_bucket", "_sum", "_count"];
        let histogram = parts.into_iter().find_map(|part| name.strip_suffix(part));
        histogram.filter(|name| self.kinds.get(*name).is_some_and(|kind| kind == "histogram")).unwrap_or(name)
    }
}

fn name_of(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}
