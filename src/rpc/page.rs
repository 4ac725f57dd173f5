//! Pages of lists, as AIP-158 defines them.

use super::invalid;
use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hash, RandomState};
use tonic::Status;

const SIZE_DEFAULT: usize = 100;
const SIZE_MAX: usize = 1000;

/// The number of entries in a page, given the request's `page_size`: 100 if 0, and never more than 1,000.
///
/// # Errors
/// `INVALID_ARGUMENT` for a negative size.
pub fn page_size(requested: i32) -> Result<usize, Status> {
    match usize::try_from(requested) {
        Err(_) => Err(invalid("page_size", "must not be negative")),
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(SIZE_MAX)),
    }
}

/// Writes and reads page tokens. A token names the start of the next page, and carries a seal over that and its query. A
/// token of another server, or of another query, is refused.
#[derive(Default)]
pub struct PageTokens(RandomState);

impl PageTokens {
    /// A token for the page of `query` that starts at `next`.
    #[must_use]
    pub fn write(&self, query: &impl Hash, next: &str) -> String {
        format!("{:016x}{}", self.seal(query, next), hex(next))
    }

    /// The start of the page; `None` for the first page.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a token that does not belong to `query`.
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

/// A page of a list in order of name.
pub struct Page<T> {
    /// The entries.
    pub page: Vec<T>,
    /// The token of the next page; empty if this is the last.
    pub next_page_token: String,
    /// The entries of the whole list now.
    pub total_size: u64,
}

/// The page for `token` of a list that has `total_size` entries now. `after(name, n)` returns the first `n` entries after a
/// name, in order.
///
/// # Errors
/// As [`PageTokens::read`].
pub fn page_by_name<T, N: Borrow<str>>(
    total_size: usize,
    after: impl FnOnce(&str, usize) -> Vec<T>,
    name: impl Fn(&T) -> N,
    size: usize,
    tokens: &PageTokens,
    token: &str,
) -> Result<Page<T>, Status> {
    const QUERY: &str = "by name";
    let previous = tokens.read(&QUERY, token)?.unwrap_or_default();
    let mut page = after(&previous, size + 1);
    let more = page.len() > size;
    page.truncate(size);
    let next_page_token = match page.last() {
        Some(last) if more => tokens.write(&QUERY, name(last).borrow()),
        _ => String::new(),
    };
    Ok(Page { page, next_page_token, total_size: total_size as u64 })
}

/// Finds the `n` entries with the smallest keys, in memory for about `2 * n`.
pub struct FirstN<K, T> {
    count: usize,
    found: Vec<(K, T)>,
}

impl<K: Ord, T> FirstN<K, T> {
    /// Finds the first `count` entries.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { count, found: Vec::new() }
    }

    /// Adds an entry. Cost: constant, on average.
    pub fn add(&mut self, key: K, entry: T) {
        self.found.push((key, entry));
        if self.found.len() > self.count.saturating_mul(2).saturating_add(64) {
            self.drop_excess();
        }
    }

    fn drop_excess(&mut self) {
        if self.found.len() > self.count {
            self.found.select_nth_unstable_by(self.count, |a, b| a.0.cmp(&b.0));
            self.found.truncate(self.count);
        }
    }

    /// The entries found, in order.
    #[must_use]
    pub fn in_order(mut self) -> Vec<T> {
        self.drop_excess();
        self.found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.found.into_iter().map(|(_, entry)| entry).collect()
    }
}

/// Of a number or a room name, so it is short.
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
    fn token_belongs_to_its_query() {
        let tokens = PageTokens::default();
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
    fn first_n_equal_those_of_sorted_list() {
        for count in [0, 1, 7, 100, 5000] {
            let mut first = FirstN::new(count);
            let mut all: Vec<u32> = (0..2000).map(|n| n * 7919 % 2003).collect();
            for n in &all {
                first.add(*n, *n);
                assert!(first.found.len() <= 2 * count + 64);
            }
            all.sort_unstable();
            all.truncate(count);
            assert_eq!(first.in_order(), all);
        }
    }

    #[test]
    fn page_size_has_default_and_maximum() {
        assert_eq!((page_size(0).unwrap(), page_size(7).unwrap(), page_size(5000).unwrap()), (100, 7, 1000));
        assert!(page_size(-1).is_err());
    }
}
