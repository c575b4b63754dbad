//! "run Llama 70B on 4 H100s", "run `nvidia-smi` on node gpu-1".

use claw_proto::limits::GPUS_PER_REPLICA_MAX;
use claw_proto::spec::{GpuRequest, Placement, WorkloadKind, WorkloadSpec};

use super::notes::Notes;
use super::{Reading, clause, command, model, serve, skip};
use crate::answer::{Answer, Intent, RefusalCode, Source, Span, Understood};
use crate::catalog::Model;
use crate::catalog::fit::{GpuShape, Verdict, catalog_fit, gpus_needed};
use crate::lexicon::Act;

/// A request to run something, as far as it is read.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) reading: Reading<'a>,
    pub(super) spec: WorkloadSpec,
    pub(super) gpu: GpuRequest,
    pub(super) placement: Placement,
    pub(super) model: Option<&'a Model>,
    pub(super) notes: Notes,
}

/// Reads one clause at a place and says where the next one begins.
type Clause = for<'a> fn(&mut Run<'a>, usize) -> Option<usize>;

/// The clauses of a request to run something, the more special ones first.
const CLAUSES: &[Clause] = &[
    command::read,
    clause::name,
    clause::image,
    clause::env,
    clause::ports,
    clause::excluded_nodes,
    clause::node,
    clause::zone,
    clause::tenant,
    clause::cpu,
    clause::memory,
    clause::replicas,
    clause::priority,
    clause::duration,
    clause::kind,
    clause::quantization,
    clause::nvlink,
    clause::gpu,
    model::read,
    clause::pronoun,
];

pub(super) fn read(reading: Reading<'_>) -> Answer {
    let mut run = Run {
        reading,
        spec: WorkloadSpec::default(),
        gpu: GpuRequest::default(),
        placement: Placement::default(),
        model: None,
        notes: Notes::default(),
    };
    let mut i = 0;
    while i < reading.words.len() && !run.notes.is_lost() {
        let next = reading
            .verb
            .end_at(i)
            .or_else(|| CLAUSES.iter().find_map(|clause| clause(&mut run, i)))
            .or_else(|| skip(reading.words, i));
        i = next.unwrap_or_else(|| {
            run.notes.not_understood(i);
            i + 1
        });
    }
    run.finish()
}

impl Run<'_> {
    /// The part of the request that these tokens take, as a source.
    pub(super) fn text(&self, tokens: std::ops::Range<usize>) -> Source {
        Source::Text(self.reading.words.span(tokens))
    }

    fn finish(mut self) -> Answer {
        if let Some((typed, right)) = &self.reading.verb.corrected {
            let why = format!("{typed:?} was read as {right:?}");
            self.notes.assume("action", "run", why);
        }
        let something = self.model.is_some() || self.spec.command.is_some() || self.spec.image.is_some();
        let (unclear, hint) =
            if something { ("workload", "") } else { ("workload.model", "A command stands in backquotes.") };
        if let Some(objection) = self.notes.objection(self.reading.words, unclear, hint) {
            return objection;
        }
        if !something {
            let prompt = "What shall run? Name a model of the catalogue, an image, or a command in backquotes.";
            return Answer::ask("workload", prompt, Vec::new());
        }
        if let Some(objection) = self.judge_gpus() {
            return objection;
        }
        self.fill_kind();
        serve::fill(&mut self);
        self.understood()
    }

    /// What stands against the GPUs asked for, if something does.
    fn judge_gpus(&mut self) -> Option<Answer> {
        if self.gpu.count.is_some_and(|count| count > GPUS_PER_REPLICA_MAX) {
            let prompt = format!("One replica has at most {GPUS_PER_REPLICA_MAX} GPUs; how many are meant?");
            return Some(Answer::ask("workload.gpu.count", prompt, Vec::new()));
        }
        let named = self.gpu.model.is_some() || self.gpu.memory_gib_min.is_some();
        match (self.model, self.gpu.count) {
            (None, None) if !named => None,
            (None, Some(_)) => None,
            (None | Some(_), None) => Some(self.ask_count()),
            (Some(_), Some(0)) => {
                let why = "no GPU was asked for, so the model runs on the CPU";
                self.notes.assume("workload.gpu.count", 0, why);
                None
            }
            (Some(model), Some(count)) => self.judge_fit(model, count),
        }
    }

    /// Nobody said how many GPUs: a number of ours would be an invention.
    fn ask_count(&self) -> Answer {
        let catalog = self.reading.catalog;
        let wanted = self.gpu.model.as_deref();
        let mut options = Vec::new();
        if let Some(model) = self.model {
            let weights_gib = model.weights_gib(self.spec.quantization);
            let gpus = catalog.gpus().iter();
            for gpu in gpus.filter(|gpu| wanted.is_none_or(|id| gpu.id == id)).take(4) {
                let largest = gpu.memory_gib.iter().copied().fold(0.0, f64::max);
                let per_gpu = self.gpu.memory_gib_min.unwrap_or(largest);
                options.push(format!("{} × {}", gpus_needed(weights_gib, per_gpu), gpu.id));
            }
        }
        let prompt = match (self.model, options.is_empty()) {
            (Some(model), false) => format!(
                "On how many GPUs shall {} run? Its weights alone take {:.0} GiB; the least that holds them is offered.",
                model.id,
                model.weights_gib(self.spec.quantization).ceil()
            ),
            (_, _) => "On how many GPUs shall it run?".to_owned(),
        };
        Answer::ask("workload.gpu.count", prompt, options)
    }

    fn judge_fit(&mut self, model: &Model, count: u32) -> Option<Answer> {
        let shape = GpuShape { model: self.gpu.model.as_deref(), memory_gib: self.gpu.memory_gib_min, count };
        let fit = catalog_fit(self.reading.catalog, model, self.spec.quantization, shape);
        let (weights, precision) = (fit.weights_gib, fit.quantization);
        let gpus = self.gpu.model.as_deref().unwrap_or("GPU");
        match fit.verdict {
            Verdict::DoesNotFit { memory_gib, gpus_needed } => Some(Answer::refusal(
                RefusalCode::DoesNotFit,
                format!(
                    "the weights of {} at {precision} take {weights:.1} GiB, and {count} × {gpus} have {memory_gib:.0} GiB; {gpus_needed} × {gpus} would hold them",
                    model.id
                ),
            )),
            Verdict::DependsOnMemory { fitting_gib, too_small_gib } => {
                let show = |sizes: &[f64]| sizes.iter().map(|gib| format!("{gib:.0} GiB")).collect::<Vec<_>>();
                Some(Answer::ask(
                    "workload.gpu.memory_gib_min",
                    format!(
                        "{gpus} exists with {} too, and {count} of those cannot hold the {weights:.1} GiB of {} at {precision}. How much memory per GPU is meant?",
                        show(&too_small_gib).join(" or "),
                        model.id
                    ),
                    show(&fitting_gib),
                ))
            }
            Verdict::Fits { memory_gib } => {
                if self.spec.quantization.is_none() {
                    let why = format!(
                        "no precision was named, so the published weights are taken: {weights:.1} GiB of the {memory_gib:.0} GiB of {count} × {gpus}"
                    );
                    self.notes.assume("workload.quantization", precision, why);
                }
                None
            }
            Verdict::Unknown => {
                let why = format!(
                    "no GPU model was named, so any may be taken; each needs {:.1} GiB for the weights at {precision}",
                    weights / f64::from(count)
                );
                self.notes.assume("workload.gpu.model", serde_json::Value::Null, why);
                None
            }
        }
    }

    fn fill_kind(&mut self) {
        let serves = self.reading.verb.act == Act::Serve;
        if self.spec.kind.is_some() || self.model.is_none() {
            return;
        }
        self.spec.kind = Some(WorkloadKind::Inference);
        let field = "workload.kind";
        if serves {
            let verb = self.reading.verb.tokens.first().cloned().unwrap_or_default();
            let source = self.text(verb);
            self.notes.came_from(field, source);
        } else {
            self.notes.assume(field, WorkloadKind::Inference, "a model by its name is run to serve it");
            self.notes.came_from(field, Source::Default);
        }
    }

    fn understood(mut self) -> Answer {
        if self.gpu != GpuRequest::default() {
            self.spec.gpu = Some(self.gpu);
        }
        if self.placement != Placement::default() {
            self.spec.placement = Some(self.placement);
        }
        let (assumptions, provenance) = self.notes.into_reasons();
        Answer::Intent(Understood { intent: Intent::Run { workload: Box::new(self.spec) }, assumptions, provenance })
    }

    /// The span of some tokens.
    pub(super) fn span(&self, tokens: std::ops::Range<usize>) -> Span {
        self.reading.words.span(tokens)
    }
}
