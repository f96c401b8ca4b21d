//! From a declaration to a pipeline: what the fields say to one another.
//!
//! - Every mistake is found in one go, those of reading the fields included.
//! - What follows from a mistake that is already listed is not listed again: a reference to a
//!   stage whose ports could not be read says nothing about the port.
//! - A pipeline comes out if and only if there is no problem.
//!
//! What the node knows (uploaded components and assets) comes in as `Facts`.

mod connect;
mod stages;

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{self, Arc};
use super::{Delivery, Edge, Ingest, Output, Pipeline, Scope, Stage, StageIndex};
use crate::manifest::{
    Declaration, EdgeDeclaration, OutputDeclaration, Problem, Problems, Reference, Value, item,
    member, nearest, read, show,
};

/// What the node knows about a tenant and a manifest may refer to. Unknown parts (`None`) are not
/// checked: a manifest can be looked at without a node.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The components the tenant has uploaded.
    pub components: Option<KnownComponents>,
    /// Digests of the assets the tenant has uploaded.
    pub assets: Option<BTreeSet<String>>,
}

/// A tenant's components.
#[derive(Debug, Clone, Default)]
pub struct KnownComponents {
    /// Name to the digest it stands for now.
    pub names: BTreeMap<String, String>,
    /// Every digest there is, whether a name stands for it or not.
    pub digests: BTreeSet<String>,
}

/// Output names that mean something else at the edge.
const RESERVED_OUTPUTS: [&str; 1] = ["dead-letters"];

/// Names listed in a message before it says "and more".
const NAMES_SHOWN_MAX: usize = 8;

/// Checks a manifest as a whole.
///
/// # Errors
/// All problems of the manifest, those of single fields first.
pub fn build(manifest: &Value, facts: &Facts) -> Result<Pipeline, Problems> {
    let (declaration, problems) = read(manifest);
    if problems.names("version") {
        return Err(problems);
    }
    Check::new(&declaration, problems).run(facts)
}

/// Checks a declaration, however it was made: its fields are read again from what it would be
/// written as.
///
/// # Errors
/// All problems of the declaration, those of single fields first.
pub fn check(declaration: &Declaration, facts: &Facts) -> Result<Pipeline, Problems> {
    build(&declaration.write(), facts)
}

impl Pipeline {
    /// The declaration of this pipeline: names for indices, every default spelled out, components
    /// pinned to the digests they were resolved to. Checking it gives this pipeline again.
    #[must_use]
    pub fn declaration(&self) -> Declaration {
        let name = |names: &[String], index: u16| names.get(usize::from(index)).cloned();
        let port = |stage: StageIndex, port: u16| {
            let stage = &self.stages[stage];
            Reference { stage: stage.name.clone(), part: name(&stage.ports, port) }
        };
        let input = |stage: StageIndex, input: u16| {
            let stage = &self.stages[stage];
            Reference { stage: stage.name.clone(), part: name(&stage.inputs, input) }
        };
        let edge = |edge: &Edge| EdgeDeclaration {
            from: port(edge.from, edge.port),
            to: input(edge.to, edge.input),
            key: edge.key.clone(),
        };
        let output = |output: &Output| OutputDeclaration {
            from: port(output.from, output.port),
            key: output.key.clone(),
            retain_bytes: output.retain_bytes,
        };
        Declaration {
            name: self.name.clone(),
            delivery: self.delivery,
            partitions: self.partitions,
            scaling: self.scaling.clone(),
            ingest: crate::manifest::IngestDeclaration {
                to: self.ingest.targets.iter().map(|(s, i)| input(*s, *i)).collect(),
                key: self.ingest.key.clone(),
                time: self.ingest.time.clone(),
                time_unit: self.ingest.time_unit,
            },
            time: self.time,
            stages: self.stages.iter().map(|s| (s.name.clone(), s.clone())).collect(),
            edges: self.edges.iter().map(edge).collect(),
            outputs: self.outputs.iter().map(|o| (o.name.clone(), output(o))).collect(),
            sources: self.sources.iter().map(|s| (s.name.clone(), s.clone())).collect(),
            sinks: self.sinks.iter().map(|s| (s.name.clone(), s.clone())).collect(),
        }
    }
}

/// Which part of a stage a reference names.
#[derive(Clone, Copy)]
enum Part {
    Port,
    Input,
}

impl Part {
    const fn word(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Input => "input",
        }
    }

    fn names(self, stage: &Stage) -> &[String] {
        match self {
            Self::Port => &stage.ports,
            Self::Input => &stage.inputs,
        }
    }
}

/// Where a reference leads.
#[derive(Clone, Copy, Default)]
struct Place {
    /// The stage, or the one that was probably meant.
    stage: Option<StageIndex>,
    /// The port or input, if all of the reference is right.
    exact: Option<(StageIndex, u16)>,
}

/// Both ends of each edge, the targets of ingest, and where each output comes from.
struct Places {
    edges: Vec<(Place, Place)>,
    targets: Vec<Place>,
    outputs: Vec<Place>,
}

struct Check<'a> {
    declaration: &'a Declaration,
    /// The stages in the order of their names: their indices.
    stages: Vec<&'a Stage>,
    problems: Problems,
    /// True if so much of the graph could not be read that what is missing from it means nothing.
    graph_unreadable: bool,
}

impl<'a> Check<'a> {
    fn new(declaration: &'a Declaration, problems: Problems) -> Self {
        let lists = ["stages", "edges", "ingest", "ingest.to"];
        let blank = |reference: &Reference| reference.stage.is_empty();
        let graph_unreadable = lists.iter().any(|list| problems.names(list))
            || declaration.ingest.to.iter().any(blank)
            || declaration.edges.iter().any(|edge| blank(&edge.to));
        let stages = declaration.stages.values().collect();
        Self { declaration, stages, problems, graph_unreadable }
    }

    fn run(mut self, facts: &Facts) -> Result<Pipeline, Problems> {
        let places = self.resolve();
        self.repeats(&places);
        self.cycles(&places);
        if !self.graph_unreadable {
            self.unreachable(&places);
        }
        self.output_names();
        self.renames();
        self.scaled_streams();
        self.connectors();
        let stages = self.known_stages(facts);
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        Ok(self.pipeline(&places, stages))
    }

    fn resolve(&mut self) -> Places {
        let declaration = self.declaration;
        let targets = declaration.ingest.to.iter().enumerate();
        let targets =
            targets.map(|(i, to)| self.place(to, Part::Input, &item("ingest.to", i))).collect();
        let mut edges = Vec::with_capacity(declaration.edges.len());
        for (i, edge) in declaration.edges.iter().enumerate() {
            let path = item("edges", i);
            let from = self.place(&edge.from, Part::Port, &member(&path, "from"));
            let to = self.place(&edge.to, Part::Input, &member(&path, "to"));
            edges.push((from, to));
        }
        let mut outputs = Vec::with_capacity(declaration.outputs.len());
        if let Some(stage) = declaration.scaling.as_ref().and_then(|own| own.apart.as_ref()) {
            let apart = Reference { stage: stage.clone(), part: None };
            let _known = self.stage_named(&apart, "scaling.apart");
        }
        for (name, output) in &declaration.outputs {
            let field = member(&member("outputs", name), "from");
            outputs.push(self.place(&output.from, Part::Port, &field));
        }
        Places { edges, targets, outputs }
    }

    /// The stage of this name; without one, a problem and where it was probably meant to lead.
    fn stage_named(&mut self, reference: &Reference, field: &str) -> Result<StageIndex, Place> {
        let named = |stage: &&Stage| stage.name == reference.stage;
        let found = self.stages.iter().position(named);
        found.ok_or_else(|| self.unknown_stage(reference, field))
    }

    fn place(&mut self, reference: &Reference, part: Part, field: &str) -> Place {
        let index = match self.stage_named(reference, field) {
            Ok(index) => index,
            Err(meant) => return meant,
        };
        let stage = self.stages[index];
        let mut place = Place { stage: Some(index), exact: None };
        let names = part.names(stage);
        let found = match &reference.part {
            None => (!names.is_empty()).then_some(0),
            Some(name) => names.iter().position(|n| n == name),
        };
        let list = member(&member("stages", &stage.name), &format!("{}s", part.word()));
        if let Some(found) = found {
            let found = u16::try_from(found).expect("a stage has at most 64 ports and inputs");
            place.exact = Some((index, found));
        } else if !self.problems.touches(&list) {
            let (word, code) = (part.word(), unknown_part(part));
            let wanted = reference.part.as_deref();
            let message = match wanted {
                Some(wanted) => {
                    format!("stage {} has no {word} {}", show(&stage.name), show(wanted))
                }
                None => format!("stage {} has no {word}s", show(&stage.name)),
            };
            let all = names.iter().map(String::as_str);
            let fix = match wanted.and_then(|wanted| nearest(wanted, all.clone())) {
                Some(meant) => format!("did you mean \"{}.{meant}\"?", stage.name),
                None => {
                    format!("its {word}s are {}; add it to {list} or name another", listed(all))
                }
            };
            self.problems.add(Problem::new(field, code, message, fix));
        }
        place
    }

    fn unknown_stage(&mut self, reference: &Reference, field: &str) -> Place {
        if self.problems.is_full() {
            // One more would only be counted: the search for what was meant is spared.
            self.problems.omit();
            self.graph_unreadable = true;
            return Place::default();
        }
        let names = self.stages.iter().map(|stage| stage.name.as_str());
        let meant = nearest(&reference.stage, names.clone());
        if !self.problems.names("stages") {
            let fix = match meant {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("the stages are {}", listed(names)),
            };
            let message = format!("there is no stage {}", show(&reference.stage));
            self.problems.add(Problem::new(field, "pipeline.unknown-stage", message, fix));
        }
        let stage = self.stages.iter().position(|stage| Some(stage.name.as_str()) == meant);
        Place { stage, exact: None }
    }

    /// An event must not arrive twice at one input by way of two equal lines.
    fn repeats(&mut self, places: &Places) {
        let mut seen = BTreeMap::new();
        for (i, (from, to)) in places.edges.iter().enumerate() {
            let Some(ends) = from.exact.zip(to.exact) else { continue };
            if let Some(first) = seen.insert(ends, i) {
                let message = format!("joins the same port to the same input as edges[{first}]");
                let fix = "remove one of them, or give the stage a second input";
                let code = "pipeline.duplicate-edge";
                self.problems.add(Problem::new(item("edges", i), code, message, fix));
            }
        }
        let mut seen = BTreeMap::new();
        for (i, target) in places.targets.iter().enumerate() {
            let Some(target) = target.exact else { continue };
            if let Some(first) = seen.insert(target, i) {
                let message = format!("names the same input as ingest.to[{first}]");
                let code = "pipeline.duplicate-edge";
                let field = item("ingest.to", i);
                self.problems.add(Problem::new(field, code, message, "remove one of them"));
            }
        }
    }

    fn cycles(&mut self, places: &Places) {
        let exact = |(from, to): &(Place, Place)| Some((from.exact?.0, to.exact?.0));
        let edges: Vec<(usize, Arc)> = places
            .edges
            .iter()
            .enumerate()
            .filter_map(|(i, ends)| exact(ends).map(|arc| (i, arc)))
            .collect();
        let arcs: Vec<Arc> = edges.iter().map(|(_, arc)| *arc).collect();
        for cycle in graph::cycles(self.stages.len(), &arcs) {
            let (mut way, mut lines) = (Vec::new(), Vec::new());
            for arc in &cycle {
                let (line, (from, _)) = edges[*arc];
                way.push(self.stages[from].name.as_str());
                lines.push(item("edges", line));
            }
            way.extend(way.first().copied());
            let message = format!("closes the cycle {}", shortened(&way, " → "));
            let fix = format!("remove one of {}", shortened(&lines, ", "));
            let field = lines.last().cloned().unwrap_or_default();
            self.problems.add(Problem::new(field, "pipeline.cycle", message, fix));
        }
    }

    /// Stages no event can reach, and inputs nothing feeds although the stage asks for several.
    fn unreachable(&mut self, places: &Places) {
        let mut seeds: Vec<usize> = places.targets.iter().filter_map(|p| p.stage).collect();
        let mut arcs = Vec::new();
        for (from, to) in &places.edges {
            match (from.stage, to.stage) {
                (Some(from), Some(to)) => arcs.push((from, to)),
                // Its source is a mistake of its own; this stage is not to blame.
                (None, Some(to)) => seeds.push(to),
                (_, None) => {}
            }
        }
        let reached = graph::reached(self.stages.len(), &seeds, &arcs);
        for (index, reached) in reached.into_iter().enumerate() {
            if reached {
                self.unfed_inputs(index, places);
                continue;
            }
            let field = member("stages", &self.stages[index].name);
            let fix = "add it to ingest.to, add an edge to it from a stage that events reach, or \
                       remove it";
            let message = "no event can reach this stage";
            self.problems.add(Problem::new(field, "pipeline.unreachable", message, fix));
        }
    }

    fn unfed_inputs(&mut self, index: StageIndex, places: &Places) {
        let stage = self.stages[index];
        let arriving = || places.targets.iter().chain(places.edges.iter().map(|(_, to)| to));
        let here = || arriving().filter(|place| place.stage == Some(index));
        if stage.inputs.len() < 2 || here().any(|place| place.exact.is_none()) {
            return;
        }
        let fed: BTreeSet<usize> =
            here().filter_map(|place| place.exact).map(|(_, input)| input.into()).collect();
        for (i, input) in stage.inputs.iter().enumerate().filter(|(i, _)| !fed.contains(i)) {
            let field = item(&member(&member("stages", &stage.name), "inputs"), i);
            let message = format!("nothing feeds the input {}", show(input));
            let fix = format!("add an edge to \"{}.{input}\", or remove the input", stage.name);
            self.problems.add(Problem::new(field, "pipeline.unfed-input", message, fix));
        }
    }

    fn output_names(&mut self) {
        for name in RESERVED_OUTPUTS {
            if self.declaration.outputs.contains_key(name) {
                let message = format!("{name:?} is where failed events are read");
                let fix = "choose another name for this output";
                let field = member("outputs", name);
                self.problems.add(Problem::new(field, "pipeline.reserved-name", message, fix));
            }
        }
    }

    /// Without a log streams end whenever a pipeline is switched, and scaling does so at any time.
    fn scaled_streams(&mut self) {
        let Declaration { scaling, delivery, .. } = self.declaration;
        let streams = self.stages.iter().find(|stage| stage.scope == Scope::Stream);
        let (Some(_), Delivery::BestEffort, Some(stage)) = (scaling, delivery, streams) else {
            return;
        };
        let message = format!(
            "would end the open streams of stage {} each time: with delivery = \"best-effort\" \
             they do not outlive a switch",
            show(&stage.name)
        );
        let fix = "leave the table out, or write delivery = \"exactly-once\"";
        self.problems.add(Problem::new("scaling", "pipeline.scaled-streams", message, fix));
    }

    /// Only called when there is no problem: then every place is exact.
    fn pipeline(&self, places: &Places, stages: Vec<Stage>) -> Pipeline {
        let declaration = self.declaration;
        let edges = declaration.edges.iter().zip(&places.edges).filter_map(|(edge, (from, to))| {
            let ((from, port), (to, input)) = from.exact.zip(to.exact)?;
            Some(Edge { from, port, to, input, key: edge.key.clone() })
        });
        let outputs = declaration.outputs.iter().zip(&places.outputs);
        let outputs = outputs.filter_map(|((name, output), place)| {
            let (from, port) = place.exact?;
            let (key, retain_bytes) = (output.key.clone(), output.retain_bytes);
            Some(Output { name: name.clone(), from, port, key, retain_bytes })
        });
        Pipeline {
            name: declaration.name.clone(),
            delivery: declaration.delivery,
            partitions: declaration.partitions,
            scaling: declaration.scaling.clone(),
            ingest: Ingest {
                targets: places.targets.iter().filter_map(|place| place.exact).collect(),
                key: declaration.ingest.key.clone(),
                time: declaration.ingest.time.clone(),
                time_unit: declaration.ingest.time_unit,
            },
            time: declaration.time,
            stages,
            edges: edges.collect(),
            outputs: outputs.collect(),
            sources: declaration.sources.values().cloned().collect(),
            sinks: declaration.sinks.values().cloned().collect(),
        }
    }
}

const fn unknown_part(part: Part) -> &'static str {
    match part {
        Part::Port => "pipeline.unknown-port",
        Part::Input => "pipeline.unknown-input",
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut shown: Vec<String> = names.take(NAMES_SHOWN_MAX + 1).map(show).collect();
    if shown.is_empty() {
        return "none".to_owned();
    }
    if shown.len() > NAMES_SHOWN_MAX {
        shown.truncate(NAMES_SHOWN_MAX);
        shown.push("and more".to_owned());
    }
    shown.join(", ")
}

/// The two ends of a long list.
fn shortened<T: AsRef<str>>(parts: &[T], between: &str) -> String {
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    if parts.len() <= NAMES_SHOWN_MAX {
        return parts.join(between);
    }
    let (first, last) = (&parts[..NAMES_SHOWN_MAX - 2], &parts[parts.len() - 1..]);
    [first, &["…"], last].concat().join(between)
}
