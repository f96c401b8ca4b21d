//! From a segment of a checked pipeline to the plan its partitions run, the routes out of it, and
//! the partitions themselves.

use std::sync::Arc;

use sluicebox_core::ids::{EdgeId, OutputId};
use sluicebox_core::key;
use sluicebox_core::layer::{KeyRule, LayerLimits, Ports, Spread, Target};
use sluicebox_core::partition::{Codes, Leads, SegmentPlan, StageIds, StagePlan, stage_of_state};
use sluicebox_core::pipeline::{EdgeKey, Pipeline, StageIndex};
use sluicebox_core::segment::{Plan, Segment};
use sluicebox_core::state::{StateLimits, Ttl};

use super::{Parts, PipelineShared, Route, SegmentRuntime, StageRuntime};
use crate::mailbox::{Inherited, Mailbox};
use crate::worker::record::SegmentDurable;

/// Name of the output that answers requests which wait for a result.
const REPLY: &str = "reply";

/// Most bytes one state batch may answer.
const REPLY_BYTES: usize = 16 << 20;

/// See the module.
pub(super) struct SegmentBuilder<'a> {
    pub pipeline: &'a Pipeline,
    pub plan: &'a Plan,
    pub segment: &'a Segment,
    pub partitions: u16,
    pub mailboxes: &'a [Vec<Arc<Mailbox>>],
    pub parts: &'a Parts<'a>,
}

impl SegmentBuilder<'_> {
    pub(super) fn build(&self, shared: &Arc<PipelineShared>, at: usize) -> SegmentRuntime {
        let mut plans = Vec::new();
        let mut stages = Vec::new();
        let mut routes = Vec::new();
        for stage in &self.segment.stages {
            let (plan, of_stage) = self.stage(*stage);
            plans.push(plan);
            routes.push(of_stage);
            let (code, settings) = self.parts.code[*stage].clone();
            let name = self.pipeline.stages[*stage].name.clone();
            let metrics = self.parts.metrics.stage(&name);
            let uid = self.parts.uid + *stage as u64;
            let codes = self.parts.codes[*stage].clone();
            stages.push(StageRuntime { name, uid, code, settings, codes, metrics });
        }
        let plan = Arc::new(SegmentPlan { stages: plans });
        let durable = self.durable(&routes);
        let outputs = self.pipeline.outputs.iter().zip(&self.parts.outputs);
        let own = outputs.filter(|(output, _)| self.segment.stages.contains(&output.from));
        let outputs = own.map(|(output, ring)| (ring.clone(), output.name.to_string())).collect();
        SegmentRuntime { shared: shared.clone(), at, plan, stages, routes, durable, outputs }
    }

    /// The numbers of the segment, in a pipeline with a log. Targets are in the order of `stage`:
    /// first edges, then outputs.
    fn durable(&self, routes: &[Vec<Route>]) -> Option<SegmentDurable> {
        let (durable, numbering) = self.parts.durable.as_ref()?;
        let (mut edges, mut outputs, mut stages) = (Vec::new(), Vec::new(), Vec::new());
        for (index, routes) in self.segment.stages.iter().zip(routes) {
            let of_edges = self.pipeline.edges.iter().filter(|edge| edge.from == *index);
            let of_edges = of_edges.map(|edge| Number::Edge(numbering.edge(self.pipeline, edge)));
            let of_outputs = self.pipeline.outputs.iter().filter(|output| output.from == *index);
            let of_outputs =
                of_outputs.map(|output| Number::Output(numbering.output(&output.name)));
            let numbers = of_edges.chain(of_outputs);
            let lead = |(number, route): (Number, &Route)| match (number, route) {
                (_, Route::Inside) => Some(Leads::Inside),
                (Number::Edge(edge), Route::Same(there) | Route::Keyed(there)) => {
                    edges.push((edge?, there.clone()));
                    edge.map(Leads::Edge)
                }
                (Number::Output(output), Route::Output { ring, reply }) => {
                    outputs.push((output?, ring.clone(), *reply));
                    output.map(Leads::Output)
                }
                _ => None,
            };
            let leads: Option<Vec<Leads>> = numbers.zip(routes).map(lead).collect();
            let leads = leads.expect("the numbers are those of this pipeline");
            let stage = numbering.stage(&self.pipeline.stages[*index].name);
            let stage = stage.expect("the numbers are those of this pipeline");
            stages.push(StageIds { stage, leads });
        }
        Some(SegmentDurable {
            pipeline: durable.clone(),
            version: self.parts.version,
            stages,
            edges,
            outputs,
        })
    }

    fn stage(&self, index: StageIndex) -> (StagePlan, Vec<Route>) {
        let (stage, codes) = (&self.pipeline.stages[index], &self.parts.codes[index]);
        let (mut targets, mut inside, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for (at, edge) in self.pipeline.edges.iter().enumerate() {
            if edge.from != index {
                continue;
            }
            let local = self.segment.inside.contains(&at);
            let spread = match edge.key {
                EdgeKey::Cause => Spread::One,
                EdgeKey::Emitted | EdgeKey::Json(_) => Spread::Groups(self.partitions),
            };
            let key = rule(&edge.key);
            targets.push(Target {
                port: edge.port,
                input: edge.input,
                key,
                spread,
                inside: !local,
            });
            let child = self.segment.stages.iter().position(|s| *s == edge.to);
            inside.push(child.filter(|_| local));
            let there = || self.mailboxes[self.plan.of_stage[edge.to]].clone();
            routes.push(match (local, spread) {
                (true, _) => Route::Inside,
                (false, Spread::One) => Route::Same(there()),
                (false, Spread::Groups(_)) => Route::Keyed(there()),
            });
        }
        for (at, output) in self.pipeline.outputs.iter().enumerate() {
            if output.from != index {
                continue;
            }
            let (key, port, spread) = (rule(&output.key), output.port, Spread::One);
            targets.push(Target { port, input: 0, key, spread, inside: false });
            inside.push(None);
            let ring = self.parts.outputs[at].clone();
            routes.push(Route::Output { ring, reply: output.name == REPLY });
        }
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let limits = LayerLimits {
            emit_bytes: bytes(stage.limits.emit_bytes),
            event_bytes: bytes(stage.limits.event_bytes),
            reply_bytes: REPLY_BYTES,
        };
        let state = StateLimits {
            key_bytes: bytes(stage.limits.state_bytes),
            total_bytes: self.parts.tenant.state_bytes().most(),
        };
        let plan = StagePlan {
            name: stage.name.clone(),
            scope: stage.scope,
            on_failure: stage.on_failure,
            retries: stage.retries,
            stream: stage.stream,
            codes: Codes { now: codes.now, oldest: codes.oldest() },
            park: stage.park,
            ports: Arc::new(Ports::new(stage.ports.len() as u16, targets)),
            inside,
            limits,
            state,
            state_ttl: stage.state_ttl_ms.map(Ttl::of_ms),
        };
        (plan, routes)
    }
}

/// The number of what a target leads to.
#[derive(Clone, Copy)]
enum Number {
    Edge(Option<EdgeId>),
    Output(Option<OutputId>),
}

fn rule(key: &EdgeKey) -> KeyRule {
    match key {
        EdgeKey::Cause => KeyRule::Cause,
        EdgeKey::Emitted => KeyRule::Emitted,
        EdgeKey::Json(pointer) => KeyRule::Json(pointer.clone()),
    }
}

/// Gives each partition of a segment its worker and what it inherits.
pub(super) fn place(
    runtime: &Arc<SegmentRuntime>,
    (partitions, is_apart): (u16, bool),
    parts: &mut Parts<'_>,
) -> Vec<Arc<Mailbox>> {
    let workers = parts.workers.len();
    // Pipelines begin at different workers, so that many small ones spread evenly. All segments of
    // a partition are on one, so that what goes from one to the next stays there; but a stage that
    // is apart is to run beside the others.
    let first =
        key::hash(parts.name.as_str().as_bytes()) as usize % workers + usize::from(is_apart);
    let stages: Vec<&str> = runtime.stages.iter().map(|stage| stage.name.as_str()).collect();
    let mut make = |partition: u16| {
        let owner = &parts.workers[(first + usize::from(partition)) % workers];
        let states = parts.states.get_mut(usize::from(partition)).map(|states| {
            let mine = |(name, _): &mut (String, _)| stages.contains(&stage_of_state(name).0);
            states.extract_if(.., mine).collect()
        });
        let ids = runtime.durable.as_ref().map(|durable| durable.ids(partition));
        let progress = ids.map(|ids| parts.standing.progress(&ids));
        let watermark = parts.time.watermark(runtime.root_name());
        let states = states.unwrap_or_default();
        let inherited = Inherited { states, progress, watermark };
        Mailbox::new(runtime.clone(), partition, owner.clone(), parts.inbox_bytes, inherited)
    };
    (0..partitions).map(&mut make).collect()
}
