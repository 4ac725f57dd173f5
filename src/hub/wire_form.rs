//! Wire forms: the encodings in which members receive messages. A closed set, so that no index can be out of range.

use std::ops::{Index, IndexMut};

/// One of the encodings in which a room's members receive messages. What each looks like is up to the
/// [`Payload`](crate::hub::Payload); one that has a single encoding ignores the form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WireForm {
    /// The first encoding.
    #[default]
    Primary,
    /// The second encoding.
    Secondary,
}

impl WireForm {
    /// All forms, in order of declaration.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Secondary];
}

/// One value for each wire form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByForm<T>([T; WireForm::ALL.len()]);

impl<T> ByForm<T> {
    /// The value that `value` makes for each form.
    #[must_use]
    pub fn from_fn(value: impl FnMut(WireForm) -> T) -> Self {
        Self(WireForm::ALL.map(value))
    }

    /// The values, in order of form.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<WireForm> for ByForm<T> {
    type Output = T;

    fn index(&self, form: WireForm) -> &T {
        &self.0[form as usize]
    }
}

impl<T> IndexMut<WireForm> for ByForm<T> {
    fn index_mut(&mut self, form: WireForm) -> &mut T {
        &mut self.0[form as usize]
    }
}
