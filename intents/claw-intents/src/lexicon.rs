//! The lexicon: which words mean what. Adding a word or a language is a change
//! of these tables alone.
//!
//! English is always read. The other languages count only where the verb is of
//! that language, so that "die" or "once" never turn an English sentence round.

use crate::answer::QuerySubject;
use crate::text::Words;
use crate::words::digits;

/// A language of the lexicon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lang {
    /// English.
    English,
    /// German.
    German,
    /// Spanish.
    Spanish,
    /// French.
    French,
}

use Lang::{English, French, German, Spanish};

/// What a verb asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Start a new workload.
    Run,
    /// Start a new workload that answers requests.
    Serve,
    /// Stop a workload.
    Stop,
    /// Drain a node.
    Drain,
    /// Undrain a node.
    Undrain,
    /// Read something.
    Query,
    /// An operation that cannot be asked for in words.
    Other(&'static str),
}

type Phrase = &'static [&'static str];

/// Verbs: what they ask for, by phrase.
pub(crate) const VERBS: &[(Lang, Phrase, Act)] = &[
    (English, &["run"], Act::Run),
    (English, &["start"], Act::Run),
    (English, &["start", "up"], Act::Run),
    (English, &["launch"], Act::Run),
    (English, &["execute"], Act::Run),
    (English, &["spin", "up"], Act::Run),
    (English, &["fire", "up"], Act::Run),
    (English, &["bring", "up"], Act::Run),
    (English, &["serve"], Act::Serve),
    (English, &["host"], Act::Serve),
    (English, &["stop"], Act::Stop),
    (English, &["cancel"], Act::Stop),
    (English, &["kill"], Act::Stop),
    (English, &["terminate"], Act::Stop),
    (English, &["abort"], Act::Stop),
    (English, &["shut", "down"], Act::Stop),
    (English, &["drain"], Act::Drain),
    (English, &["evacuate"], Act::Drain),
    (English, &["undrain"], Act::Undrain),
    (English, &["un-drain"], Act::Undrain),
    (English, &["show"], Act::Query),
    (English, &["show", "me"], Act::Query),
    (English, &["list"], Act::Query),
    (English, &["get"], Act::Query),
    (English, &["display"], Act::Query),
    (English, &["give", "me"], Act::Query),
    (English, &["what", "is"], Act::Query),
    (English, &["what's"], Act::Query),
    (English, &["whats"], Act::Query),
    (English, &["how", "is"], Act::Query),
    (English, &["how's"], Act::Query),
    (English, &["which"], Act::Query),
    (German, &["starte"], Act::Run),
    (German, &["stoppe"], Act::Stop),
    (German, &["beende"], Act::Stop),
    (German, &["leere"], Act::Drain),
    (German, &["zeige"], Act::Query),
    (German, &["zeig"], Act::Query),
    (Spanish, &["ejecuta"], Act::Run),
    (Spanish, &["inicia"], Act::Run),
    (Spanish, &["arranca"], Act::Run),
    (Spanish, &["detén"], Act::Stop),
    (Spanish, &["cancela"], Act::Stop),
    (Spanish, &["muestra"], Act::Query),
    (French, &["lance"], Act::Run),
    (French, &["exécute"], Act::Run),
    (French, &["démarre"], Act::Run),
    (French, &["arrête"], Act::Stop),
    (French, &["annule"], Act::Stop),
    (French, &["montre"], Act::Query),
    (English, &["deploy"], Act::Other("deploy")),
    (English, &["redeploy"], Act::Other("deploy")),
    (English, &["ship"], Act::Other("deploy")),
    (English, &["release"], Act::Other("deploy")),
    (English, &["roll", "out"], Act::Other("deploy")),
    (English, &["update"], Act::Other("update")),
    (English, &["bump"], Act::Other("update")),
    (English, &["switch"], Act::Other("update")),
    (English, &["scale"], Act::Other("scale")),
    (English, &["autoscale"], Act::Other("scale")),
    (English, &["rollback"], Act::Other("rollback")),
    (English, &["roll", "back"], Act::Other("rollback")),
    (English, &["revert"], Act::Other("rollback")),
    (English, &["train"], Act::Other("train")),
    (English, &["pretrain"], Act::Other("train")),
    (English, &["finetune"], Act::Other("train")),
    (English, &["fine-tune"], Act::Other("train")),
    (English, &["alert"], Act::Other("alert")),
    (English, &["notify"], Act::Other("alert")),
    (English, &["warn"], Act::Other("alert")),
    (English, &["bid"], Act::Other("bid")),
    (English, &["buy"], Act::Other("bid")),
    (English, &["offer"], Act::Other("offer")),
    (English, &["sell"], Act::Other("offer")),
    (English, &["diagnose"], Act::Other("diagnose")),
    (English, &["debug"], Act::Other("diagnose")),
    (English, &["troubleshoot"], Act::Other("diagnose")),
    (English, &["why"], Act::Other("diagnose")),
    (English, &["cordon"], Act::Other("cordon")),
    (English, &["uncordon"], Act::Other("uncordon")),
    (English, &["restart"], Act::Other("restart")),
    (English, &["reboot"], Act::Other("reboot")),
    (English, &["upgrade"], Act::Other("upgrade")),
    (English, &["install"], Act::Other("install")),
    (English, &["delete"], Act::Other("delete")),
    (English, &["remove"], Act::Other("remove")),
    (English, &["pause"], Act::Other("pause")),
    (English, &["resume"], Act::Other("resume")),
];

/// Words that change nothing.
pub(crate) const FILLERS: &[(Lang, Phrase)] = &[
    (English, &["please"]),
    (English, &["pls"]),
    (English, &["plz"]),
    (English, &["kindly"]),
    (English, &["just"]),
    (English, &["now"]),
    (English, &["ok"]),
    (English, &["okay"]),
    (English, &["hey"]),
    (English, &["hi"]),
    (English, &["hello"]),
    (English, &["heya"]),
    (English, &["thanks"]),
    (English, &["thank", "you"]),
    (English, &["thx"]),
    (English, &["the"]),
    (English, &["a"]),
    (English, &["an"]),
    (English, &["and"]),
    (English, &["for", "me"]),
    (English, &["can", "you"]),
    (English, &["can", "u"]),
    (English, &["could", "you"]),
    (English, &["would", "you"]),
    (English, &["can", "we"]),
    (English, &["i", "want", "to"]),
    (English, &["i", "want", "you", "to"]),
    (English, &["i'd", "like", "to"]),
    (English, &["i", "would", "like", "to"]),
    (English, &["i", "need", "to"]),
    (English, &["we", "need", "to"]),
    (English, &["we", "want", "to"]),
    (English, &["let's"]),
    (German, &["bitte"]),
    (German, &["und"]),
    (German, &["den"]),
    (German, &["die"]),
    (German, &["das"]),
    (German, &["der"]),
    (German, &["dem"]),
    (German, &["mir"]),
    (Spanish, &["por", "favor"]),
    (Spanish, &["el"]),
    (Spanish, &["la"]),
    (Spanish, &["los"]),
    (Spanish, &["las"]),
    (Spanish, &["y"]),
    (French, &["s'il", "te", "plaît"]),
    (French, &["s'il", "vous", "plaît"]),
    (French, &["le"]),
    (French, &["la"]),
    (French, &["les"]),
    (French, &["et"]),
];

/// Articles before a noun.
pub(crate) const ARTICLES: &[(Lang, Phrase)] = &[
    (English, &["the"]),
    (English, &["a"]),
    (English, &["an"]),
    (English, &["that"]),
    (English, &["this"]),
    (German, &["den"]),
    (German, &["die"]),
    (German, &["das"]),
    (German, &["dem"]),
    (Spanish, &["el"]),
    (Spanish, &["la"]),
    (French, &["le"]),
    (French, &["la"]),
];

/// Marks of a polite request, which a question mark may follow.
pub(crate) const POLITE: &[&[&str]] = &[
    &["can", "you"],
    &["can", "u"],
    &["could", "you"],
    &["would", "you"],
    &["can", "we"],
    &["please"],
    &["pls"],
    &["plz"],
    &["bitte"],
];

/// Whole numbers in words.
pub(crate) const NUMBERS: &[(Lang, Phrase, u32)] = &[
    (English, &["one"], 1),
    (English, &["a", "single"], 1),
    (English, &["single"], 1),
    (English, &["two"], 2),
    (English, &["a", "pair", "of"], 2),
    (English, &["three"], 3),
    (English, &["four"], 4),
    (English, &["five"], 5),
    (English, &["six"], 6),
    (English, &["seven"], 7),
    (English, &["eight"], 8),
    (English, &["nine"], 9),
    (English, &["ten"], 10),
    (English, &["eleven"], 11),
    (English, &["twelve"], 12),
    (English, &["a", "dozen"], 12),
    (English, &["sixteen"], 16),
    (English, &["twenty"], 20),
    (English, &["twenty-four"], 24),
    (English, &["thirty-two"], 32),
    (English, &["sixty-four"], 64),
    (German, &["ein"], 1),
    (German, &["eine"], 1),
    (German, &["einer"], 1),
    (German, &["einem"], 1),
    (German, &["zwei"], 2),
    (German, &["drei"], 3),
    (German, &["vier"], 4),
    (German, &["acht"], 8),
    (Spanish, &["un"], 1),
    (Spanish, &["una"], 1),
    (Spanish, &["dos"], 2),
    (Spanish, &["tres"], 3),
    (Spanish, &["cuatro"], 4),
    (Spanish, &["ocho"], 8),
    (French, &["un"], 1),
    (French, &["une"], 1),
    (French, &["deux"], 2),
    (French, &["trois"], 3),
    (French, &["quatre"], 4),
    (French, &["huit"], 8),
];

/// Words before GPUs, a node or a tool.
pub(crate) const ON: &[(Lang, Phrase)] = &[
    (English, &["on"]),
    (English, &["with"]),
    (English, &["w/"]),
    (English, &["using"]),
    (English, &["across"]),
    (German, &["auf"]),
    (German, &["mit"]),
    (Spanish, &["en"]),
    (Spanish, &["con"]),
    (French, &["sur"]),
    (French, &["avec"]),
];

/// Words for a GPU of any model.
pub(crate) const GPU_NOUNS: &[&str] =
    &["gpu", "gpus", "card", "cards", "accelerator", "accelerators", "karte", "karten", "grafikkarten"];

/// Words for a node.
pub(crate) const NODE_NOUNS: &[&str] = &["node", "machine", "host", "server", "knoten", "nodo", "nœud"];

/// Words for a workload.
pub(crate) const WORKLOAD_NOUNS: &[&str] = &["workload", "job", "task", "process", "auftrag"];

/// Words for what an operation reads.
pub(crate) const SUBJECTS: &[(Phrase, QuerySubject)] = &[
    (&["status"], QuerySubject::Status),
    (&["cluster", "status"], QuerySubject::Status),
    (&["node", "status"], QuerySubject::Nodes),
    (&["gpu", "status"], QuerySubject::Gpus),
    (&["job", "status"], QuerySubject::Workloads),
    (&["workload", "status"], QuerySubject::Workloads),
    (&["state"], QuerySubject::Status),
    (&["health"], QuerySubject::Status),
    (&["overview"], QuerySubject::Status),
    (&["nodes"], QuerySubject::Nodes),
    (&["machines"], QuerySubject::Nodes),
    (&["knoten"], QuerySubject::Nodes),
    (&["nodos"], QuerySubject::Nodes),
    (&["gpus"], QuerySubject::Gpus),
    (&["workloads"], QuerySubject::Workloads),
    (&["jobs"], QuerySubject::Workloads),
    (&["tasks"], QuerySubject::Workloads),
    (&["deployments"], QuerySubject::Deployments),
    (&["logs"], QuerySubject::Logs),
    (&["log"], QuerySubject::Logs),
    (&["log", "lines"], QuerySubject::Logs),
    (&["events"], QuerySubject::Events),
    (&["metrics"], QuerySubject::Metrics),
    (&["alerts"], QuerySubject::Alerts),
    (&["costs"], QuerySubject::Costs),
    (&["audit", "log"], QuerySubject::Audit),
];

/// States that a query may ask for.
pub(crate) const STATES: &[&str] = &[
    "pending",
    "running",
    "stopping",
    "completed",
    "failed",
    "stopped",
    "lost",
    "ready",
    "draining",
    "drained",
    "cordoned",
    "unreachable",
];

impl Words<'_> {
    /// Whether words of this language are read in this request.
    fn reads(&self, lang: Lang) -> bool {
        lang == Lang::English || lang == self.lang
    }

    /// The longest verb that stands here: how many words, what it asks for, its language.
    pub(crate) fn verb(&self, i: usize) -> Option<(usize, Act, Lang)> {
        VERBS
            .iter()
            .filter(|(_, phrase, _)| self.phrase(i, phrase).is_some())
            .max_by_key(|(_, phrase, _)| phrase.len())
            .map(|(lang, phrase, act)| (phrase.len(), *act, *lang))
    }

    /// The place after the longest filler that stands here.
    pub(crate) fn filler(&self, i: usize) -> Option<usize> {
        self.table(i, FILLERS)
    }

    /// The place after a word such as "on" or "with", or the same place.
    pub(crate) fn skip_on(&self, i: usize) -> usize {
        self.table(i, ON).unwrap_or(i)
    }

    /// The place after the words "the", "a" and the like, or the same place.
    pub(crate) fn skip_article(&self, i: usize) -> usize {
        self.table(i, ARTICLES).unwrap_or(i)
    }

    fn table(&self, i: usize, table: &[(Lang, Phrase)]) -> Option<usize> {
        table.iter().filter(|(lang, _)| self.reads(*lang)).filter_map(|(_, phrase)| self.phrase(i, phrase)).max()
    }

    /// The whole number that stands here in digits or words, and the place after it.
    pub(crate) fn number(&self, i: usize) -> Option<(u32, usize)> {
        if let Some(number) = digits(self.word(i)) {
            return Some((number, i + 1));
        }
        NUMBERS
            .iter()
            .filter(|(lang, ..)| self.reads(*lang))
            .filter_map(|(_, phrase, number)| Some((*number, self.phrase(i, phrase)?)))
            .max_by_key(|(_, next)| *next)
    }
}
