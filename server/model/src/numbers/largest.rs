//! The index of the largest of several values, on integers: a knockout of pairs.
//!
//! All of it is made of ReLUs and public sums. With `d = b - a` for a pair, `s = max(0, d) - max(0, d - 1)` is 1 where `b`
//! is larger and 0 elsewhere (of equals the first is taken), and `a + max(0, d)` is the larger one. An index counts
//! within the part of the tree that it won: of two parts of `K` leaves the indices `i` and `j`, below `K`, become
//!
//! `i + max(0, j - i - K(1 - s)) - max(0, i - j - K(1 - s)) + K·s`,
//!
//! which is `i` for `s = 0` and `j + K` for `s = 1`.

use super::scales::Build;
use crate::graph::{Gather, Op, Term, ValueId};
use crate::real::Origin;

/// Places of a result by row and column.
fn places(rows: usize, columns: usize, of: impl Fn(usize, usize) -> Option<usize>) -> Gather {
    Gather::from_places((0..rows * columns).map(|at| of(at / columns, at % columns)))
}

fn term(value: ValueId, factor: i32, gather: Gather) -> Term {
    Term { value, factor, gather }
}

impl Build<'_> {
    /// The index of the first largest in each of `rows` rows of `count` values, of which `values` has one after the
    /// other. Two or more values a row.
    pub(super) fn index_of_largest(
        &mut self,
        origin: &Origin,
        values: ValueId,
        rows: usize,
        count: usize,
    ) -> ValueId {
        let (mut values, mut index, mut count, mut leaves) = (values, None, count, 1i32);
        while count > 1 {
            let (pairs, next) = (count / 2, count.div_ceil(2));
            let first = || places(rows, pairs, |row, pair| Some(row * count + 2 * pair));
            let second = || places(rows, pairs, |row, pair| Some(row * count + 2 * pair + 1));
            // Where a part of the tree has no other, it stays as it is.
            let kept = || places(rows, next, |row, pair| Some(row * count + 2 * pair));
            let won = || places(rows, next, |row, pair| (pair < pairs).then_some(row * pairs + pair));
            let len = rows * pairs;

            let difference = vec![term(values, 1, second()), term(values, -1, first())];
            let difference = self.push(origin, Op::Public { terms: difference, constant: 0, len });
            let above = self.push(origin, Op::Relu { input: difference, shift: 0 });
            let less = vec![term(difference, 1, Gather::All)];
            let less = self.push(origin, Op::Public { terms: less, constant: -1, len });
            let less = self.push(origin, Op::Relu { input: less, shift: 0 });
            let second_wins = vec![term(above, 1, Gather::All), term(less, -1, Gather::All)];
            let second_wins = self.push(origin, Op::Public { terms: second_wins, constant: 0, len });
            self.know(second_wins, 0, 1);

            let mut terms = vec![term(second_wins, leaves, won())];
            if let Some(index) = index {
                let mut side = |one: Gather, other: Gather, sign: i32| {
                    let terms = vec![
                        term(index, 1, one),
                        term(index, -1, other),
                        term(second_wins, leaves, Gather::All),
                    ];
                    let side = self.push(origin, Op::Public { terms, constant: -leaves, len });
                    self.know(side, 1 - 2 * i64::from(leaves), i64::from(leaves) - 1);
                    let side = self.push(origin, Op::Relu { input: side, shift: 0 });
                    term(side, sign, won())
                };
                terms.extend([side(second(), first(), 1), side(first(), second(), -1)]);
                terms.push(term(index, 1, kept()));
            }
            let new = self.push(origin, Op::Public { terms, constant: 0, len: rows * next });
            self.know(new, 0, 2 * i64::from(leaves) - 1);
            index = Some(new);
            if next > 1 {
                let larger = vec![term(values, 1, kept()), term(above, 1, won())];
                values = self.push(origin, Op::Public { terms: larger, constant: 0, len: rows * next });
            }
            (count, leaves) = (next, 2 * leaves);
        }
        index.unwrap_or(values)
    }
}
