//! Submissions that wait for a place of their stage, of which there are two.

use super::*;

/// Numbers of those that ended, in their order.
fn ended(heard: &[Heard]) -> Vec<u64> {
    let ended = heard.iter().filter(|(_, answer, _)| matches!(answer, Answer::Ended { .. }));
    ended.map(|(number, ..)| *number).collect()
}

struct Set {
    rig: Rig,
    /// A graph and a buffer of each of five owners of a stage.
    owned: Vec<(Owner, u64, u64)>,
}

fn set(source: &str) -> Set {
    let mut rig = Rig::new();
    let owned = (0..5).map(|instance| {
        let who = owner(1, 0, instance);
        let graph = rig.graph(who, source, 1);
        let buffer = rig.buffer(who, &[1]);
        (who, graph, buffer)
    });
    let owned = owned.collect();
    Set { rig, owned }
}

impl Set {
    fn submit(&mut self, at: usize, millis: u64, waits: bool) -> u64 {
        let (who, graph, buffer) = self.owned[at];
        self.rig.asks(who, submit(graph, buffer, millis, waits))
    }

    /// All is done: the numbers of those that were taken since, and of those that ended, in their
    /// order.
    fn run(&mut self) -> [Vec<u64>; 2] {
        let ended = ended(&self.rig.run());
        [self.rig.taken(), ended]
    }
}

#[test]
fn those_that_wait_are_taken_in_their_order() {
    let mut set = set(ADD);
    let numbers: Vec<u64> = (0..5).map(|at| set.submit(at, 1_000, true)).collect();
    assert_eq!(set.rig.taken(), numbers[..2], "there are two places");
    assert_eq!(set.rig.replies(), [], "who waits hears of the end only");
    let rest = set.rig.run();
    assert_eq!([set.rig.taken(), ended(&rest)], [numbers[2..].to_vec(), numbers]);
    assert!(
        rest.iter()
            .all(|(_, answer, _)| { matches!(answer, Answer::Ended { end: End::Whole, .. }) })
    );
}

#[test]
fn none_goes_past_those_that_wait() {
    let mut set = set(ADD);
    let numbers: Vec<u64> = (0..3).map(|at| set.submit(at, 1_000, true)).collect();
    set.rig.taken();
    let refused = set.submit(3, 1_000, false);
    let again = set.submit(2, 1_000, true);
    for (number, answer, _) in set.rig.replies() {
        assert!([refused, again].contains(&number));
        assert_eq!(code(answer), "gpu.would-block");
    }
    // A place that is free is the first's.
    let owner = set.owned[0].0;
    assert_eq!(set.rig.says(Want::DropOwner { owner }), Answer::Done);
    let last = set.submit(4, 1_000, true);
    assert_eq!(set.rig.replies(), []);
    let (first, second) = (numbers[1], numbers[2]);
    assert_eq!(set.run(), [vec![second, last], vec![first, second, last]]);
}

#[test]
fn one_that_does_not_wait_is_refused_when_there_is_no_place() {
    let mut set = set(ADD);
    set.submit(0, 1_000, false);
    set.submit(0, 1_000, false);
    set.rig.replies();
    let (who, graph, buffer) = set.owned[0];
    assert_eq!(code(set.rig.does(who, submit(graph, buffer, 1_000, false))), "gpu.would-block");
    let other = owner(1, 1, 0);
    let graph = set.rig.graph(other, ADD, 1);
    let buffer = set.rig.buffer(other, &[1]);
    handle(set.rig.does(other, submit(graph, buffer, 1_000, false)));
    set.rig.run();
}

#[test]
fn time_goes_on_while_one_waits() {
    let mut set = set(ENDLESS);
    for at in 0..2 {
        set.submit(at, 10_000, true);
    }
    let late = set.submit(2, 0, true);
    let in_time = set.submit(3, 10_000, true);
    set.rig.taken();
    assert_eq!(set.rig.server.parked.due(), Some(set.rig.now()));
    set.rig.turn(Duration::ZERO);
    let ended = Answer::Ended { end: End::Deadline, device_nanos: 0 };
    assert_eq!(set.rig.replies(), [(late, ended, Vec::new())]);
    let rest = set.rig.run();
    assert_eq!(set.rig.taken(), [in_time]);
    assert!(rest.iter().all(|(number, ..)| *number != late), "that was all");
    assert_eq!(set.rig.heard[&late], [1, 0]);
}

#[test]
fn what_the_gone_have_asked_for_is_not_answered() {
    let mut set = set(ADD);
    for at in 0..5 {
        set.submit(at, 1_000, true);
    }
    let taken = set.rig.taken();
    for at in [0, 3] {
        let owner = set.owned[at].0;
        assert_eq!(set.rig.says(Want::DropOwner { owner }), Answer::Done);
    }
    let (second, third, last) = (taken[1], taken[1] + 1, taken[1] + 3);
    assert_eq!(set.run(), [vec![third, last], vec![second, third, last]]);
}

#[test]
fn what_waits_of_a_stage_that_goes_does_so_too() {
    let mut set = set(ADD);
    for at in 0..5 {
        set.submit(at, 1_000, true);
    }
    set.rig.replies();
    let stage = set.owned[0].0.stage;
    assert_eq!(set.rig.says(Want::CloseStage { stage }), Answer::Done);
    assert_eq!(set.rig.run(), []);
    assert_eq!(set.rig.says(Want::CloseTenant { tenant: 1 }), Answer::Done);
    assert_eq!(set.rig.run(), []);
    assert!(set.rig.server.submissions.is_empty());
}

#[test]
fn one_that_is_wrong_is_refused_when_its_turn_comes() {
    let mut set = set(ADD);
    for at in 0..3 {
        set.submit(at, 1_000, true);
    }
    let (who, graph, buffer) = set.owned[2];
    let gone = Act::Free { handle: buffer };
    set.rig.replies();
    assert_eq!(set.rig.does(who, gone), Answer::Done);
    let last = set.submit(3, 1_000, true);
    let refused: Vec<_> = set.rig.run().into_iter().filter(|(number, ..)| *number < last).collect();
    let refused = refused.into_iter().find(|(_, answer, _)| matches!(answer, Answer::Refused(_)));
    assert_eq!(code(refused.unwrap().1), "gpu.handle");
    assert_eq!(set.rig.heard[&last], [1, 0]);
    assert_eq!(code(set.rig.does(who, submit(graph, buffer, 1, true))), "gpu.handle");
}

#[test]
fn what_waits_is_not_looked_at_before_there_is_a_place() {
    let mut set = set(ENDLESS);
    let numbers: Vec<u64> = (0..3).map(|at| set.submit(at, 10_000, true)).collect();
    let (who, _, buffer) = set.owned[2];
    assert_eq!(set.rig.taken(), numbers[..2]);
    assert_eq!(set.rig.does(who, Act::Free { handle: buffer }), Answer::Done);
    for _ in 0..3 {
        set.rig.turn(Duration::ZERO);
        assert_eq!(set.rig.replies(), [], "what it uses is looked at when its turn comes");
    }
    let said = set.rig.run();
    assert_eq!(said.len(), 3, "{said:?}");
    let refused = said.into_iter().find(|(number, ..)| *number == numbers[2]);
    assert_eq!(code(refused.unwrap().1), "gpu.handle");
}

#[test]
fn a_place_of_who_is_gone_is_free_when_the_device_is_done_with_it() {
    let mut set = set(ENDLESS);
    let numbers: Vec<u64> = (0..3).map(|at| set.submit(at, 10_000, true)).collect();
    set.rig.turn(Duration::ZERO);
    set.rig.taken();
    // One of them is on the device, and nobody is told when it ends.
    for at in 0..2 {
        let owner = set.owned[at].0;
        assert_eq!(set.rig.says(Want::DropOwner { owner }), Answer::Done);
    }
    assert_eq!(set.run(), [vec![numbers[2]], vec![numbers[2]]]);
}

#[test]
fn places_that_a_tenant_is_given_are_taken() {
    let mut set = set(ENDLESS);
    let numbers: Vec<u64> = (0..4).map(|at| set.submit(at, 10_000, true)).collect();
    assert_eq!(set.rig.taken(), numbers[..2]);
    set.rig.server.limits.queue = 3;
    assert_eq!(set.rig.says(Want::Tenant { tenant: 1, terms: terms() }), Answer::Done);
    set.rig.turn(Duration::ZERO);
    assert_eq!(set.rig.taken(), numbers[2..3]);
    set.rig.run();
}

#[test]
fn a_place_is_the_next_ones_if_the_first_waits_no_longer() {
    let mut set = set(ENDLESS);
    let numbers: Vec<u64> = (0..5).map(|at| set.submit(at, 10_000, true)).collect();
    set.rig.taken();
    let owner = set.owned[2].0;
    assert_eq!(set.rig.says(Want::DropOwner { owner }), Answer::Done);
    let rest = set.run();
    assert_eq!(rest[0], numbers[3..], "{rest:?}");
}
