//! Work that several threads do in any order, and that is taken in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A bounded queue of numbered items, 0, 1, ..: producers claim numbers in order, put the items when
/// they have them, and consumers take them in order. No producer is further ahead of the consumers
/// than there is room.
#[derive(Debug)]
pub struct InOrder<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    count: usize,
    room: usize,
}

#[derive(Debug)]
struct State<T> {
    /// Items that nobody has taken yet.
    there: BTreeMap<usize, T>,
    claimed: usize,
    taken: usize,
    is_closed: bool,
}

impl<T> InOrder<T> {
    /// For so many items, of which at most `room`, and at least one, are claimed and not taken.
    pub fn new(count: usize, room: usize) -> Self {
        let state = State { there: BTreeMap::new(), claimed: 0, taken: 0, is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), count, room: room.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, is_due: impl Fn(&State<T>) -> bool) -> MutexGuard<'_, State<T>> {
        let state = self.changed.wait_while(self.lock(), |state| !is_due(state));
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number to produce, once there is room; none at the end, or where the queue is closed.
    pub fn claim(&self) -> Option<usize> {
        let has_room = |state: &State<T>| state.claimed < state.taken + self.room;
        let is_over = |state: &State<T>| state.is_closed || state.claimed == self.count;
        let mut state = self.wait_until(|state| is_over(state) || has_room(state));
        if is_over(&state) {
            return None;
        }
        state.claimed += 1;
        Some(state.claimed - 1)
    }

    /// Puts an item that was claimed.
    pub fn put(&self, number: usize, item: T) {
        let mut state = self.lock();
        if number >= state.taken {
            state.there.insert(number, item);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The next item, once it is there; none at the end. Of a closed queue, what was claimed before
    /// is still given.
    pub fn take(&self) -> Option<T> {
        let is_over =
            |state: &State<T>| state.taken == if state.is_closed { state.claimed } else { self.count };
        let is_there = |state: &State<T>| state.there.contains_key(&state.taken);
        let mut state = self.wait_until(|state| is_there(state) || is_over(state));
        let next = state.taken;
        let item = state.there.remove(&next)?;
        state.taken += 1;
        self.changed.notify_all();
        Some(item)
    }

    /// From now on nothing is claimed.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Closes the queue and drops what is in it, now and later: nobody takes from it any more.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.taken = state.claimed;
        state.there.clear();
        self.changed.notify_all();
    }

    /// Abandons the queue if the thread that keeps this panics.
    pub fn abandoned_by_panic(&self) -> AbandonedByPanic<'_, T> {
        AbandonedByPanic(self)
    }
}

/// Abandons a queue if its thread panics while it has this: others do not wait for its items.
#[derive(Debug)]
pub struct AbandonedByPanic<'a, T>(&'a InOrder<T>);

impl<T> Drop for AbandonedByPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn items_come_in_order_and_no_producer_is_further_ahead_than_there_is_room() {
        let (count, room) = (200, 3);
        let queue = InOrder::new(count, room);
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (queue, taken) = (&queue, &taken);
                scope.spawn(move || {
                    while let Some(number) = queue.claim() {
                        assert!(number < taken.load(Ordering::SeqCst) + room + 1, "{number}");
                        if number % 4 == worker {
                            std::thread::yield_now();
                        }
                        queue.put(number, number);
                    }
                });
            }
            let all = std::iter::from_fn(|| {
                let item = queue.take();
                taken.fetch_add(1, Ordering::SeqCst);
                item
            });
            assert!(all.eq(0..count));
        });
    }

    #[test]
    fn what_was_claimed_before_a_queue_is_closed_is_given_and_nothing_of_an_abandoned_one() {
        let queue = InOrder::new(9, 9);
        let claimed = [queue.claim(), queue.claim()];
        assert_eq!(claimed, [Some(0), Some(1)]);
        queue.close();
        assert_eq!(queue.claim(), None);
        (0..2).for_each(|number| queue.put(number, number));
        assert_eq!([queue.take(), queue.take(), queue.take()], [Some(0), Some(1), None]);
        let queue = InOrder::new(9, 9);
        queue.claim();
        queue.claim();
        queue.put(0, 0);
        queue.abandon();
        queue.put(1, 1);
        assert_eq!((queue.claim(), queue.take()), (None, None));
    }

    #[test]
    fn a_producer_that_panics_leaves_nobody_waiting() {
        let queue = InOrder::<usize>::new(9, 9);
        let producer = || {
            let _all = queue.abandoned_by_panic();
            queue.claim();
            std::panic::resume_unwind(Box::new("on purpose"));
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(producer);
            assert_eq!(queue.take(), None);
            assert!(thread.join().is_err());
        });
    }
}
