use super::*;
use proptest::prelude::*;

fn put(store: &mut Store, pool: &mut BlockPool, bytes: &[u8]) -> usize {
    store.write(pool, |room| {
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        n
    })
}

/// Writes until it has all been taken or there is no room.
fn put_all(store: &mut Store, pool: &mut BlockPool, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        match put(store, pool, &bytes[done..]) {
            0 => break,
            n => done += n,
        }
    }
    done
}

fn take(store: &Store, pool: &BlockPool, offset: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0xee; len];
    let n = store.read_at(pool, offset, &mut out);
    out.truncate(n);
    out
}

#[test]
fn small_writes_share_a_block_and_an_idle_store_holds_none() {
    let mut pool = BlockPool::new(16);
    let mut store = Store::new();
    for echo in 0..200u64 {
        assert_eq!(put(&mut store, &mut pool, &[echo as u8; 64]), 64);
        // The peer is one echo behind.
        store.release_to(&mut pool, echo * 64);
        assert!(store.blocks() <= 2);
    }
    assert_eq!(take(&store, &pool, 199 * 64, 100), [199; 64]);
    store.release_to(&mut pool, 200 * 64);
    assert_eq!((store.blocks(), pool.free()), (0, 16));
}

#[test]
fn sixty_four_small_writes_take_one_block_and_one_piece() {
    let mut pool = BlockPool::new(16);
    let mut store = Store::new();
    for _ in 0..64 {
        assert_eq!(put(&mut store, &mut pool, &[7; 64]), 64);
    }
    assert_eq!((store.blocks(), store.pieces.len(), store.len()), (1, 1, 4096));
    assert_eq!(put(&mut store, &mut pool, &[8; 64]), 64);
    assert_eq!((store.blocks(), store.pieces.len()), (2, 2));
    store.clear(&mut pool);
}

#[test]
fn heads_and_shared_bodies_interleave_in_one_block() {
    let mut pool = BlockPool::new(4);
    let mut store = Store::new();
    let body = Content::new(&b"body"[..]);
    for _ in 0..10 {
        assert_eq!(put(&mut store, &mut pool, b"head:"), 5);
        assert!(store.share(&mut pool, &body, 0..4));
    }
    assert_eq!(store.blocks(), 1);
    assert_eq!(body.references(), 11);
    assert_eq!(take(&store, &pool, 0, 1000), b"head:body".repeat(10));
    assert_eq!(take(&store, &pool, 7, 4), b"dyhe");
    assert_eq!(store.chunk_at(&pool, 14), b"body");
    // Half a body acknowledged: it is kept whole, the piece before it is not.
    store.release_to(&mut pool, 7);
    assert_eq!(body.references(), 11);
    assert_eq!(take(&store, &pool, 7, 4), b"dyhe");
    assert_eq!(take(&store, &pool, 6, 4), b"", "acknowledged bytes are gone");
    store.clear(&mut pool);
    assert_eq!((body.references(), pool.free()), (1, 4));
}

#[test]
fn a_block_whose_bytes_are_acknowledged_is_filled_anew() {
    let mut pool = BlockPool::new(4);
    let mut store = Store::new();
    let body = Content::new(vec![1; 1 << 20]);
    assert_eq!(put_all(&mut store, &mut pool, &[2; 4096]), 4096);
    assert!(store.share(&mut pool, &body, 0..1 << 20));
    store.release_to(&mut pool, 5000);
    assert_eq!(store.blocks(), 1, "open, and empty");
    assert_eq!(put(&mut store, &mut pool, &[3; 9000]), 4096);
    assert_eq!(store.blocks(), 1);
    assert_eq!(take(&store, &pool, 4096 + (1 << 20), 4096), [3; 4096]);
    store.clear(&mut pool);
    assert_eq!(pool.free(), 4);
}

#[test]
fn ranges_outside_of_the_content_are_refused() {
    let (mut store, mut pool) = (Store::new(), BlockPool::new(0));
    let body = Content::new(&b"0123456789"[..]);
    assert!(!store.share(&mut pool, &body, 5..11));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 6..5;
    assert!(!store.share(&mut pool, &body, reversed));
    assert!(!store.share(&mut pool, &body, usize::MAX - 1..usize::MAX));
    assert!(store.share(&mut pool, &body, 10..10));
    assert_eq!((store.end(), store.pieces.len()), (0, 0));
    assert!(store.share(&mut pool, &body, 9..10));
    assert_eq!(take(&store, &pool, 0, 9), b"9");
}

#[test]
fn pieces_and_bytes_are_bounded() {
    let mut pool = BlockPool::new(1000);
    let mut store = Store::new();
    assert_eq!(store.room(&pool), STORE_MAX);
    assert_eq!(put_all(&mut store, &mut pool, &vec![1; STORE_MAX + 1]), STORE_MAX);
    assert_eq!((store.room(&pool), store.blocks()), (0, STORE_MAX / STORE_BLOCK));
    store.release_to(&mut pool, 1);
    assert_eq!(store.room(&pool), 1);
    assert_eq!(put_all(&mut store, &mut pool, &[1; 10]), 1);
    store.clear(&mut pool);

    let one = Content::new(&b"x"[..]);
    for _ in 0..STORE_PIECES {
        assert!(store.share(&mut pool, &one, 0..1));
    }
    let capacity = store.pieces.capacity();
    assert!(!store.share(&mut pool, &one, 0..1));
    assert_eq!(store.room(&pool), 0);
    assert_eq!(put(&mut store, &mut pool, b"y"), 0);
    store.release_to(&mut pool, 1);
    assert_eq!(store.room(&pool), STORE_BLOCK);
    assert_eq!(put_all(&mut store, &mut pool, &[2; 9000]), STORE_BLOCK);
    assert_eq!(store.pieces.capacity(), capacity, "the queue never grows");
    store.clear(&mut pool);
    // The list goes to whoever needs one next, which nobody does for a single piece.
    assert_eq!(store.pieces.capacity(), 0);
    let mut next = Store::new();
    assert!(next.share(&mut pool, &one, 0..1));
    assert_eq!(next.pieces.capacity(), 0);
    assert!(next.share(&mut pool, &one, 0..1));
    assert_eq!(next.pieces.capacity(), capacity);
    next.release_to(&mut pool, 1);
    assert_eq!((next.pieces.len(), next.pieces.capacity()), (1, 0));
    next.clear(&mut pool);
}

#[test]
fn a_spent_pool_keeps_something_for_those_who_hold_nothing() {
    let mut pool = BlockPool::new(4);
    let (mut greedy, mut modest, mut third, mut fourth) = (Store::new(), Store::new(), Store::new(), Store::new());
    assert_eq!(greedy.room(&pool), 2 * STORE_BLOCK);
    assert_eq!(put_all(&mut greedy, &mut pool, &[1; 1 << 18]), 2 * STORE_BLOCK);
    assert_eq!(put(&mut greedy, &mut pool, b"more"), 0);
    assert_eq!(put_all(&mut modest, &mut pool, &[2; 1 << 18]), STORE_BLOCK);
    assert_eq!(put_all(&mut third, &mut pool, &[3; 1 << 18]), STORE_BLOCK);
    assert_eq!((pool.free(), fourth.room(&pool)), (0, 0));
    assert_eq!(put(&mut fourth, &mut pool, b"none"), 0);
    greedy.clear(&mut pool);
    assert_eq!(put(&mut fourth, &mut pool, b"now"), 3);
    for store in [&mut modest, &mut third, &mut fourth] {
        store.clear(&mut pool);
    }
    assert_eq!(pool.free(), 4);
}

#[test]
fn blocks_are_touched_only_as_they_are_needed() {
    let mut pool = BlockPool::new(1 << 20);
    let mut store = Store::new();
    for _ in 0..1000 {
        assert_eq!(put(&mut store, &mut pool, b"echo"), 4);
        store.release_to(&mut pool, store.end());
    }
    assert_eq!(pool.touched, 1, "the same warm block each time");
}

#[test]
fn a_write_that_panics_loses_no_block() {
    let mut pool = BlockPool::new(4);
    let mut store = Store::new();
    let write = std::panic::AssertUnwindSafe(|| store.write(&mut pool, |_| panic!("the application")));
    assert!(std::panic::catch_unwind(write).is_err());
    store.clear(&mut pool);
    assert_eq!(pool.free(), 4);
    assert_eq!(put(&mut store, &mut pool, b"next"), 4);
    assert_eq!(take(&store, &pool, 0, 9), b"next");
}

#[test]
fn sequential_reads_do_not_search() {
    let mut pool = BlockPool::new(STORE_PIECES);
    let mut store = Store::new();
    let body = Content::new(&b"0123456789"[..]);
    for _ in 0..STORE_PIECES / 2 {
        put(&mut store, &mut pool, b"head");
        store.share(&mut pool, &body, 0..10);
    }
    let mut offset = 0;
    while offset < store.end() {
        let before = store.cursor.get();
        let chunk = store.chunk_at(&pool, offset);
        let moved = store.cursor.get() - before;
        assert!(moved <= 1, "the cursor jumped {moved} pieces");
        offset += chunk.len() as u64;
        // The peer follows closely: the cursor must survive releases.
        store.release_to(&mut pool, offset.saturating_sub(21));
    }
    store.clear(&mut pool);
}

#[test]
fn a_store_is_small() {
    println!("Store {} bytes, Piece {} bytes", size_of::<Store>(), size_of::<Piece>());
    assert!(size_of::<Store>() <= 120);
    assert!(size_of::<Piece>() <= 24);
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize),
    WriteLess(usize),
    Share(usize, usize),
    Release(u64),
    ReleaseAll,
    Read(u64, usize),
    Clear,
}

fn op() -> impl Strategy<Value = (bool, Op)> {
    let len = || prop_oneof![1..100usize, 1..9000usize];
    let op = prop_oneof![
        4 => len().prop_map(Op::Write),
        1 => (0..100usize).prop_map(Op::WriteLess),
        3 => (0..700usize, 0..700usize).prop_map(|(a, b)| Op::Share(a.min(b), a.max(b))),
        3 => (0..6000u64).prop_map(Op::Release),
        1 => Just(Op::ReleaseAll),
        3 => (any::<u64>(), 0..7000usize).prop_map(|(o, n)| Op::Read(o, n)),
        1 => Just(Op::Clear),
    ];
    (any::<bool>(), op)
}

/// What a store must look like: the bytes from `start` on.
#[derive(Default)]
struct Oracle {
    start: u64,
    bytes: Vec<u8>,
}

impl Oracle {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn release_to(&mut self, offset: u64) {
        self.bytes.drain(..(offset - self.start) as usize);
        self.start = offset;
    }
}

fn apply(op: Op, pool: &mut BlockPool, store: &mut Store, oracle: &mut Oracle, stamp: u8, content: &Content) {
    match op {
        Op::Write(len) => {
            let bytes: Vec<u8> = (0..len).map(|i| stamp.wrapping_add((i % 251) as u8)).collect();
            let room = store.room(pool);
            let done = put_all(store, pool, &bytes);
            assert_eq!(done, room.min(len), "room() says what write() takes");
            oracle.bytes.extend(&bytes[..done]);
        }
        Op::WriteLess(len) => {
            // Scribbles over all of the room and keeps only some of it.
            let done = store.write(pool, |room| {
                room.fill(stamp);
                len.min(room.len())
            });
            oracle.bytes.extend(std::iter::repeat_n(stamp, done));
        }
        Op::Share(from, to) => {
            let fits = store.pieces.len() < STORE_PIECES || from == to;
            assert_eq!(store.share(pool, content, from..to), fits);
            if fits {
                oracle.bytes.extend(&content.bytes()[from..to]);
            }
        }
        Op::Release(len) => {
            let offset = oracle.end().min(oracle.start + len);
            store.release_to(pool, offset);
            oracle.release_to(offset);
        }
        Op::ReleaseAll => {
            store.release_to(pool, oracle.end());
            oracle.release_to(oracle.end());
        }
        Op::Read(offset, len) => {
            let offset = oracle.start + offset % (oracle.bytes.len() as u64 + 10);
            let from = ((offset - oracle.start) as usize).min(oracle.bytes.len());
            let to = (from + len).min(oracle.bytes.len());
            assert_eq!(take(store, pool, offset, len), &oracle.bytes[from..to]);
        }
        Op::Clear => {
            store.clear(pool);
            *oracle = Oracle::default();
        }
    }
}

proptest! {
    #[test]
    fn two_stores_on_one_small_pool_behave_like_vectors(ops in proptest::collection::vec(op(), 1..120)) {
        let mut pool = BlockPool::new(9);
        let content = Content::new((0..700u32).map(|i| (i % 253) as u8).collect::<Vec<_>>());
        let mut stores = [Store::new(), Store::new()];
        let mut oracles = [Oracle::default(), Oracle::default()];
        for (stamp, (which, op)) in ops.into_iter().enumerate() {
            let which = usize::from(which);
            apply(op, &mut pool, &mut stores[which], &mut oracles[which], stamp as u8, &content);
            for (store, oracle) in stores.iter().zip(&oracles) {
                prop_assert_eq!((store.start(), store.end()), (oracle.start, oracle.end()));
                prop_assert_eq!(&take(store, &pool, store.start(), oracle.bytes.len() + 1), &oracle.bytes);
                prop_assert!(!store.is_empty() || store.blocks() == 0, "an empty store holds a block");
                let owned = store.pieces.iter().filter(|p| matches!(p.source, Source::Owned { .. })).count();
                prop_assert!(store.blocks() <= owned + 1);
            }
            prop_assert_eq!(pool.free() + stores[0].blocks() + stores[1].blocks(), 9);
        }
        for store in &mut stores {
            store.clear(&mut pool);
        }
        prop_assert_eq!((pool.free(), content.references()), (9, 1));
    }
}
