//! Whether no more connections come than leave.
//!
//! Clients that come back as soon as they have been served, a thousand browsers or a load generator, keep a server busy and its
//! ring full, and yet ask for no more than it does: each that was served makes room for the next. To refuse them, because those
//! who are in already make it wait, would cost each of them its second and win nothing. So who leaves gives his place to one who
//! comes. Not so where far more come than leave: there every place goes to somebody, and only what is served in good time is
//! worth letting in.

use super::admission::Came;

/// Most places that are kept for those who have not come yet: a small part of any ring.
const PLACES_MAX: u32 = 256;
/// More newcomers than five for each four that leave are too many. Some more than one there are always: who is refused comes
/// again.
const MANY: (u32, u32) = (5, 4);
/// Comings and goings after which older ones count for half.
const MEMORY: u32 = 1024;

/// Comings and goings of one queue.
pub(super) struct Balance {
    came: u32,
    left: u32,
    places: u32,
    /// Of the last grant, those for whom there was time anyway.
    in_time: u32,
}

impl Balance {
    pub(super) fn new() -> Self {
        Balance { came: 0, left: 0, places: 0, in_time: 0 }
    }

    /// So many connections have ended.
    #[inline]
    pub(super) fn left(&mut self, ended: u32) {
        self.left = self.left.saturating_add(ended);
        self.places = self.places.saturating_add(ended).min(PLACES_MAX);
    }

    /// So many asked for a connection since the last grant. Those for whom there was time took nobody's place.
    #[inline]
    pub(super) fn came(&mut self, came: Came) {
        self.places = self.places.saturating_sub(came.admitted.saturating_sub(self.in_time));
        self.came = self.came.saturating_add(came.all);
        while self.came.max(self.left) > MEMORY {
            (self.came, self.left) = (self.came / 2, self.left / 2);
        }
    }

    /// Those who may come, if there is time for so many.
    #[inline]
    pub(super) fn grant(&mut self, in_time: u32) -> u32 {
        self.in_time = in_time;
        let places = if self.came * MANY.1 <= self.left * MANY.0 { self.places } else { 0 };
        in_time.max(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(balance: &mut Balance, left: u32, admitted: u32, all: u32) -> u32 {
        balance.left(left);
        balance.came(Came { admitted, all });
        balance.grant(1)
    }

    #[test]
    fn who_leaves_gives_his_place_to_one_who_comes() {
        let mut balance = Balance::new();
        assert_eq!(turn(&mut balance, 0, 1000, 1000), 1, "nobody has left");
        // They are served and come back, half of them in the turn after.
        for _ in 0..100 {
            turn(&mut balance, 20, 11, 11);
            turn(&mut balance, 0, 11, 11);
        }
        assert_eq!(turn(&mut balance, 20, 11, 11), 10, "those who are still to come");
        assert_eq!(turn(&mut balance, 0, 11, 11), 1);
        assert_eq!(
            turn(&mut balance, u32::MAX, 0, 0),
            PLACES_MAX,
            "a crowd that left is not followed by as many at once"
        );
        assert_eq!(turn(&mut balance, 0, u32::MAX, u32::MAX), 1);
    }

    #[test]
    fn who_has_time_takes_nobodys_place() {
        let mut balance = Balance::new();
        balance.left(30);
        assert_eq!(balance.grant(500), 500);
        balance.came(Came { admitted: 30, all: 30 });
        assert_eq!(balance.grant(1), 30, "nobody waits any longer, and they are as many as left");
        balance.came(Came { admitted: 5, all: 5 });
        assert_eq!(balance.grant(1), 26, "one of five had time");
    }

    #[test]
    fn far_more_than_leave_find_no_place() {
        let mut balance = Balance::new();
        let turns = |balance: &mut Balance, all| (0..200).map(|_| turn(balance, 10, 11, all)).last();
        assert_eq!(turn(&mut balance, 30, 0, 0), 30);
        assert_eq!(turns(&mut balance, 100), Some(1), "ten times as many");
        assert_eq!(balance.places, 30, "which would be there");
        assert_eq!(turns(&mut balance, 12), Some(30), "they have become fewer");
        assert_eq!(turns(&mut balance, 15), Some(1));
    }
}
