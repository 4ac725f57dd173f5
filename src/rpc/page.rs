//! Pages of lists (AIP-158).

use super::invalid;
use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hash, RandomState};
use tonic::Status;

const SIZE_DEFAULT: usize = 100;
const SIZE_MAX: usize = 1000;

/// How many entries a page has.
/// # Errors
/// `INVALID_ARGUMENT` for a negative size.
pub fn size(asked: i32) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Err(_) => Err(invalid("page_size", "must not be negative")),
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(SIZE_MAX)),
    }
}

/// Writes and reads page tokens. A token says where the next page begins, and is sealed with the query that it
/// belongs to: one that we did not write, or that belongs to another query, is refused.
#[derive(Default)]
pub struct Tokens(RandomState);

impl Tokens {
    /// A token for the page that begins at `next`.
    #[must_use]
    pub fn write(&self, query: &impl Hash, next: &str) -> String {
        format!("{:016x}{}", self.seal(query, next), hex(next))
    }

    /// Where the page begins; `None` is the beginning.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a token that is not one of `query`.
    pub fn read(&self, query: &impl Hash, token: &str) -> Result<Option<String>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let parts = token.split_at_checked(16);
        let next = parts.and_then(|(seal, next)| Some((u64::from_str_radix(seal, 16).ok()?, unhex(next)?)));
        match next {
            Some((seal, next)) if seal == self.seal(query, &next) => Ok(Some(next)),
            _ => Err(invalid("page_token", "is not a next_page_token of this query from this server")),
        }
    }

    fn seal(&self, query: &impl Hash, next: &str) -> u64 {
        self.0.hash_one((query, next))
    }
}

/// A page of a list that is in order of name.
pub struct Page<T> {
    /// Its entries.
    pub page: Vec<T>,
    /// For the next page; empty when this is the last.
    pub next_page_token: String,
    /// How many entries the list has now.
    pub total_size: u64,
}

/// The page that the token asks for of a list that has `total_size` entries now. `after` gives so many entries whose names
/// come after this one, in order.
///
/// # Errors
/// As [`Tokens::read`].
pub fn by_name<T, N: Borrow<str>>(
    total_size: usize,
    after: impl FnOnce(&str, usize) -> Vec<T>,
    name: impl Fn(&T) -> N,
    size: usize,
    tokens: &Tokens,
    token: &str,
) -> Result<Page<T>, Status> {
    const QUERY: &str = "by name";
    let last = tokens.read(&QUERY, token)?.unwrap_or_default();
    let mut page = after(&last, size + 1);
    let more = page.len() > size;
    page.truncate(size);
    let next_page_token = match page.last() {
        Some(last) if more => tokens.write(&QUERY, name(last).borrow()),
        _ => String::new(),
    };
    Ok(Page { page, next_page_token, total_size: total_size as u64 })
}

/// The first few of many by their keys, in memory of about twice as many.
pub struct Smallest<K, T> {
    count: usize,
    found: Vec<(K, T)>,
}

impl<K: Ord, T> Smallest<K, T> {
    /// The first `count`.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { count, found: Vec::new() }
    }

    /// Takes one more into account. Cost: constant, on average.
    pub fn add(&mut self, key: K, entry: T) {
        self.found.push((key, entry));
        if self.found.len() > self.count.saturating_mul(2).saturating_add(64) {
            self.forget_others();
        }
    }

    fn forget_others(&mut self) {
        if self.found.len() > self.count {
            self.found.select_nth_unstable_by(self.count, |a, b| a.0.cmp(&b.0));
            self.found.truncate(self.count);
        }
    }

    /// The first, in order.
    #[must_use]
    pub fn in_order(mut self) -> Vec<T> {
        self.forget_others();
        self.found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.found.into_iter().map(|(_, entry)| entry).collect()
    }
}

/// Of numbers and room names, so it is short.
fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn unhex(text: &str) -> Option<String> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
        _ => None,
    });
    String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_belongs_to_its_query() {
        let tokens = Tokens::default();
        let token = tokens.write(&("blue", 1), "42");
        assert_eq!(tokens.read(&("blue", 1), &token).unwrap().as_deref(), Some("42"));
        assert_eq!(tokens.read(&("blue", 1), "").unwrap(), None);
        for (query, token) in
            [(("red", 1), &*token), (("blue", 1), "forged"), (("blue", 1), &token[1..]), (("blue", 1), "ü")]
        {
            assert!(tokens.read(&query, token).is_err(), "{token}");
        }
    }

    #[test]
    fn smallest_are_those_of_a_sorted_list() {
        for count in [0, 1, 7, 100, 5000] {
            let mut smallest = Smallest::new(count);
            let mut all: Vec<u32> = (0..2000).map(|n| n * 7919 % 2003).collect();
            for n in &all {
                smallest.add(*n, *n);
                assert!(smallest.found.len() <= 2 * count + 64);
            }
            all.sort_unstable();
            all.truncate(count);
            assert_eq!(smallest.in_order(), all);
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_most() {
        assert_eq!((size(0).unwrap(), size(7).unwrap(), size(5000).unwrap()), (100, 7, 1000));
        assert!(size(-1).is_err());
    }
}
