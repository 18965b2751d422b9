use super::*;

#[test]
fn a_list_has_blocks_that_are_large_enough_for_all_its_sizes() {
    let mut before = (0, GRAIN);
    for size in 0..=LARGEST {
        let (number, whole) = list(size);
        assert!(number < LISTS && whole >= size && whole.is_multiple_of(GRAIN), "{size}: {number}, {whole}");
        assert!(whole <= (size + GRAIN).max(size + size / 4), "{size} wastes: {whole}");
        assert_eq!(size_of_list(number), whole);
        // One number, one size; both only grow.
        assert!((number, whole) == before || (number == before.0 + 1 && whole > before.1), "{size}");
        before = (number, whole);
    }
    assert_eq!(before, (LISTS - 1, LARGEST));
}

fn room(length: usize) -> (Vec<u128>, Lists) {
    let mut room = vec![0_u128; length / GRAIN];
    // SAFETY: the vector outlives the lists in each test.
    let lists = unsafe { Lists::new(room.as_mut_ptr().cast(), length) };
    (room, lists)
}

#[test]
fn blocks_do_not_overlap_and_come_again() {
    let (_room, mut lists) = room(4096);
    let sizes = [1, 16, 17, 100, 1024, 1025, 0];
    let blocks: Vec<*mut u8> = sizes.iter().map(|size| lists.take(*size)).collect();
    for (index, block) in blocks.iter().enumerate() {
        let end = block.addr() + list(sizes[index]).1;
        assert!(blocks.get(index + 1).is_none_or(|next| next.addr() == end));
        assert!(block.addr().is_multiple_of(GRAIN));
    }
    for (size, block) in sizes.iter().zip(&blocks) {
        unsafe { lists.give(*block, *size) };
    }
    // The last one that was given is the first that is taken.
    assert_eq!(lists.take(0), blocks[6]);
    assert_eq!(lists.take(12), blocks[1]);
    assert_eq!(lists.take(112), blocks[3]);
}

#[test]
fn a_room_that_is_full_has_still_what_was_given_back() {
    let (_room, mut lists) = room(256);
    let block = lists.take(200);
    assert!(lists.take(200).is_null());
    unsafe { lists.give(block, 200) };
    assert_eq!(lists.take(193), block);
    assert!(!lists.take(48).is_null() && lists.take(1).is_null());
}

#[test]
fn what_was_given_back_is_cut_for_smaller_ones() {
    let (_room, mut lists) = room(8192);
    let block = lists.take(4096);
    let guard = lists.take(16);
    assert_eq!(guard.addr(), block.addr() + 4096);
    unsafe { lists.give(block, 4096) };
    // Not for one that is far smaller: then the room's rest.
    assert_eq!(lists.take(1008).addr(), guard.addr() + 16);
    let first = lists.take(1040);
    assert_eq!(first, block);
    // 2816 are left: a block of 2560, and one of 256.
    assert_eq!(lists.take(2560).addr(), block.addr() + 1280);
    assert_eq!(lists.take(250).addr(), block.addr() + 1280 + 2560);
    assert!(lists.free.iter().all(|head| head.is_null()));
}

#[test]
fn what_an_image_has_is_as_large_and_aligned_as_asked_for() {
    let (_room, mut lists) = room(128 << 10);
    let mut end = lists.rest.addr();
    for (size, align) in [(40, 8), (10, 64), (LARGEST, 16), (LARGEST + 1, 1), (1, 4096), (100, 16)] {
        let layout = Layout::from_size_align(size, align).unwrap();
        let block = lists.cut(layout);
        assert!(block.addr() >= end && block.addr().is_multiple_of(align), "{size} {align}");
        end = block.addr() + size;
        assert!(end <= lists.end.addr());
        // What is small comes again, what is not never.
        if Heap::is_small(layout) && size < LARGEST {
            unsafe { lists.give(block, size) };
            assert_eq!(lists.cut(layout), block);
        }
    }
    assert!(lists.cut(Layout::from_size_align(128 << 10, 1).unwrap()).is_null());
    assert!(lists.cut(Layout::from_size_align(usize::MAX >> 1, 1).unwrap()).is_null());
}

#[test]
fn what_stands_together_leaves_out_what_is_free() {
    let (_room, mut lists) = room(16 << 10);
    let layout = |size| Layout::from_size_align(size, 8).unwrap();
    let before = lists.cut(layout(100));
    unsafe { lists.give(before, 100) };
    lists.together = true;
    let blocks = [40, 100, 5000].map(|size| lists.cut(layout(size)));
    assert_eq!(blocks.map(|block| block.addr() - before.addr()), [112, 160, 272]);
    lists.together = false;
    assert_eq!(lists.cut(layout(100)), before);
}

#[test]
fn no_two_blocks_share_a_byte_whatever_is_asked_for() {
    let length = 256 << 10;
    let (whole, mut lists) = room(length);
    let start = whole.as_ptr().addr();
    let mut held: std::collections::BTreeMap<usize, (usize, *mut u8)> = std::collections::BTreeMap::new();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for turn in 0..200_000 {
        let give_back = held.len() > 150 || random(3) == 0;
        if give_back && !held.is_empty() {
            let at = *held.keys().nth(random(held.len())).unwrap();
            let (size, block) = held.remove(&at).unwrap();
            unsafe { lists.give(block, size) };
            continue;
        }
        let size = [40, 300, 3000, LARGEST][random(4)].min(random(LARGEST) + 1);
        let block = lists.take(size);
        if block.is_null() {
            continue;
        }
        let (from, to) = (block.addr() - start, block.addr() - start + size);
        assert!(to <= length && from.is_multiple_of(GRAIN), "{turn}");
        let before = held.range(..=from).next_back().is_none_or(|(at, (size, _))| at + size <= from);
        let after = held.range(from..).next().is_none_or(|(at, _)| to <= *at);
        assert!(before && after, "{turn}: {size} bytes at {from}");
        unsafe { block.write_bytes(0xaa, size) };
        held.insert(from, (size, block));
    }
    // No block is in a list that has no bit.
    for list in 0..LISTS {
        assert!(lists.filled >> list & 1 == 1 || lists.free[list].is_null(), "{list}");
    }
}

#[test]
fn the_last_block_grows_and_shrinks_in_place() {
    let (_room, mut lists) = room(4096);
    let block = lists.take(100);
    assert!(lists.resize(block, 100, 112) && lists.resize(block, 112, 4096) && !lists.resize(block, 4096, 4097));
    assert!(lists.take(1).is_null());
    assert!(lists.resize(block, 4096, 32));
    let next = lists.take(1);
    assert_eq!(next.addr(), block.addr() + 32);
    assert!(!lists.resize(block, 32, 33) && lists.resize(block, 17, 32));
}

#[test]
fn another_thread_neither_takes_from_the_room_nor_gives_back() {
    let other = std::thread::spawn(|| {
        // The room's end, where no test comes.
        let block = unsafe { THE_ROOM.0.get().cast::<u8>().add(ROOM - 64) };
        unsafe { block.write_bytes(7, 64) };
        let (old, new) = (Layout::from_size_align(64, 16).unwrap(), Layout::from_size_align(100, 16).unwrap());
        let moved = unsafe { Heap.realloc(block, old, new.size()) };
        assert!(!moved.is_null() && !Heap::is_in_room(moved));
        let bytes = |of: *mut u8| unsafe { of.cast::<[u8; 64]>().read() };
        assert_eq!(bytes(moved), [7; 64]);
        unsafe { Heap.dealloc(moved, new) };
        // What is given back begins with the address of the next.
        assert_eq!(bytes(block), [7; 64]);
    });
    other.join().unwrap();
}

#[test]
fn large_and_aligned_objects_are_not_of_the_room() {
    for layout in [Layout::from_size_align(LARGEST + 1, 1).unwrap(), Layout::from_size_align(64, 64).unwrap()] {
        let block = unsafe { Heap.alloc(layout) };
        assert!(!block.is_null() && !Heap::is_in_room(block) && block.addr().is_multiple_of(layout.align()));
        unsafe { Heap.dealloc(block, layout) };
    }
}
