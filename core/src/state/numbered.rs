//! A table whose entries have small numbers. The number of an entry that is gone is given again.

use alloc::vec::Vec;

#[derive(Clone, Debug)]
pub(crate) struct Numbered<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Numbered<T> {
    /// Adds an entry. Returns its number.
    pub(crate) fn add(&mut self, entry: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.entries[number as usize] = Some(entry);
            return number;
        }
        self.entries.push(Some(entry));
        self.entries.len() as u32 - 1
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.entries.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.entries.get_mut(number as usize)?.as_mut()
    }

    /// Removes an entry. Its number is free.
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let entry = self.entries.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_once_its_entry_is_gone() {
        let mut table = Numbered::default();
        assert_eq!((table.add('a'), table.add('b'), table.add('c')), (0, 1, 2));
        assert_eq!((table.remove(1), table.remove(1), table.get(1)), (Some('b'), None, None));
        assert_eq!((table.add('d'), table.get(1), table.get(9)), (1, Some(&'d'), None));
        *table.get_mut(2).unwrap() = 'e';
        assert_eq!((table.add('f'), table.get(2)), (3, Some(&'e')));
    }
}
