//! A kernel as flat code over words, which is all that running it needs.
//!
//! - Every value is some words of 32 bits: a vector its components, a matrix its columns, a
//!   structure its members, without padding. A bool is 0 or 1.
//! - A place is a number of a word of the invocation, fixed when the code was made. Results lie
//!   where no operand of the same operation does.
//! - A pointer at run time is an offset into memory that is fixed by its type; [`NOWHERE`] is out
//!   of range, and stays so whatever is added.

/// The offset of what is out of range.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A function of one scalar.
pub(super) type One = fn(u32) -> u32;

/// A function of two scalars.
pub(super) type Two = fn(u32, u32) -> u32;

/// A function of up to four scalars; those it does not have are 0.
pub(super) type Four = fn([u32; 4]) -> u32;

/// A function of all words of its arguments, one after the other, to all words of its result.
pub(super) type Whole = fn(&[u32], &mut [u32]);

/// The most words that a [`Whole`] is given: three matrices.
pub(super) const WHOLE_WORDS_MAX: usize = 48;

/// An operand of a function that is applied to each component.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Arg {
    pub(super) at: u32,
    /// Words to the next component: 0 for a scalar beside vectors.
    pub(super) step: u32,
}

/// An offset: a number, and what a word holds besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) base: Option<u32>,
    pub(super) add: u32,
}

/// Where a pointer points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// To a word of the invocation.
    Own(At),
    /// To a word of what the group shares.
    Shared(At),
    /// To a byte of a binding.
    Bound { binding: u32, at: At },
}

/// How many elements an array has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Fixed(u32),
    /// As many as there are up to the end of a binding.
    Rest {
        binding: u32,
    },
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    /// Copies words.
    Copy {
        to: u32,
        from: u32,
        words: u32,
    },
    /// Makes words 0.
    Zero {
        to: u32,
        words: u32,
    },
    /// Takes single words together.
    Gather {
        to: u32,
        from: [u32; 4],
        words: u32,
    },
    /// Applies a function to each of so many components.
    Map1 {
        f: One,
        to: u32,
        from: u32,
        words: u32,
    },
    Map2 {
        f: Two,
        to: u32,
        args: [Arg; 2],
        words: u32,
    },
    Map4 {
        f: Four,
        to: u32,
        args: [Arg; 4],
        words: u32,
    },
    /// Puts components together, the first two first.
    Fold {
        f: Two,
        to: u32,
        from: u32,
        words: u32,
    },
    /// Applies a function to all at once. Arguments are places and their lengths.
    Apply {
        f: Whole,
        to: u32,
        words: u32,
        args: [(u32, u32); 3],
    },
    /// A matrix of `rows` by `inner` times one of `inner` by `columns`, column after column.
    Product {
        to: u32,
        left: u32,
        right: u32,
        rows: u32,
        inner: u32,
        columns: u32,
    },
    /// One of `count` elements of a value, each of so many words.
    Pick {
        to: u32,
        from: u32,
        index: u32,
        count: u32,
        words: u32,
    },
    /// The offset of an element.
    Element {
        to: u32,
        array: At,
        index: u32,
        count: Count,
        stride: u32,
    },
    /// The offset itself.
    Offset {
        to: u32,
        at: At,
    },
    /// How many elements there are up to the end of a binding.
    Length {
        to: u32,
        binding: u32,
        array: At,
        stride: u32,
    },
    Load {
        to: u32,
        from: Place,
        words: u32,
    },
    Store {
        to: Place,
        from: u32,
        words: u32,
    },
    /// Stores what a function makes of the old word and a value; the old word is the result.
    Atomic {
        f: Two,
        at: Place,
        value: u32,
        to: u32,
    },
    /// Stores a value if the old word is as expected; the old word and whether it was are the
    /// result.
    Exchange {
        at: Place,
        expected: u32,
        value: u32,
        to: u32,
    },
    Jump {
        to: u32,
    },
    /// Jumps if a word is 0.
    JumpUnless {
        word: u32,
        to: u32,
    },
    /// Jumps to where a table says.
    Switch {
        word: u32,
        table: u32,
    },
    /// Goes to a function and notes where to go on.
    Call {
        function: u32,
    },
    /// Goes on where a word says.
    Return {
        word: u32,
    },
    /// Waits for all invocations of the group.
    Barrier,
    /// Ends the invocation.
    End,
}

impl Op {
    /// What it costs: 1, and more if it moves much.
    pub(super) fn cost(&self) -> u64 {
        let words = match *self {
            Self::Copy { words, .. }
            | Self::Zero { words, .. }
            | Self::Map1 { words, .. }
            | Self::Map2 { words, .. }
            | Self::Map4 { words, .. }
            | Self::Fold { words, .. }
            | Self::Pick { words, .. }
            | Self::Load { words, .. }
            | Self::Store { words, .. } => words,
            Self::Apply { args, .. } => args.iter().map(|(_, words)| words).sum(),
            Self::Product { rows, inner, columns, .. } => rows * inner * columns,
            _ => 0,
        };
        1 + u64::from(words / 4)
    }
}

/// Where a switch jumps to.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Values and places in the code, in the order of the values.
    pub(super) cases: Vec<(u32, u32)>,
    pub(super) otherwise: u32,
}

/// What an invocation is told about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Its number on each axis, of all.
    Global,
    /// Its number on each axis, in its group.
    Local,
    /// Its number in its group.
    Index,
    /// The number of its group on each axis.
    Group,
    /// Groups of the whole dispatch.
    Groups,
    /// Invocations of a group on each axis.
    Threads,
}

/// A function that is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Where its code begins.
    pub(super) code: u32,
    /// The word that says where to go on after it.
    pub(super) back: u32,
}

/// A kernel that can be run; see the module.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) ops: Vec<Op>,
    /// What each operation costs.
    pub(super) costs: Vec<u64>,
    pub(super) tables: Vec<Table>,
    pub(super) functions: Vec<Entry>,
    /// Words of an invocation before it begins.
    pub(super) image: Vec<u32>,
    pub(super) inputs: Vec<(u32, Input)>,
    /// Words that a group shares.
    pub(super) shared_words: u32,
    /// Invocations of a group on each axis.
    pub(super) threads: [u32; 3],
}
