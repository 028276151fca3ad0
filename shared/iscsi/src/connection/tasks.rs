//! Open tasks by initiator task tag.
//!
//! A window is at most a hundred-odd tasks: their tags lie side by side and are looked through, which is faster than a
//! tree and allocates nothing once the table has its size.

use super::TaskId;
use super::session::Open;

/// The tasks of a session, each tag once, in no order.
#[derive(Debug, Default)]
pub struct Tasks {
    tags: Vec<u32>,
    open: Vec<Open>,
}

impl Tasks {
    pub fn len(&self) -> usize {
        self.tags.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    fn position(&self, itt: u32) -> Option<usize> {
        self.tags.iter().position(|tag| *tag == itt)
    }

    pub fn contains(&self, itt: u32) -> bool {
        self.position(itt).is_some()
    }

    pub fn get(&self, itt: u32) -> Option<&Open> {
        self.open.get(self.position(itt)?)
    }

    pub fn get_mut(&mut self, itt: u32) -> Option<&mut Open> {
        let at = self.position(itt)?;
        self.open.get_mut(at)
    }

    /// The tag of a task.
    pub fn tag(&self, id: TaskId) -> Option<u32> {
        self.iter().find(|(_, open)| open.id == id).map(|(itt, _)| itt)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Open)> {
        self.tags.iter().copied().zip(&self.open)
    }

    /// Adds a task. The caller has made sure that its tag is free.
    pub fn insert(&mut self, itt: u32, open: Open) {
        self.tags.push(itt);
        self.open.push(open);
    }

    pub fn remove(&mut self, itt: u32) -> Option<Open> {
        let at = self.position(itt)?;
        self.tags.swap_remove(at);
        Some(self.open.swap_remove(at))
    }
}
