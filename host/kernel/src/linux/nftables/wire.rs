//! The conversation with nf_tables: questions, lists and transactions.

use super::message::{Message, What};
use super::seen;
use crate::linux::attributes::Attributes;
use crate::linux::socket::{Refusal, Socket, verdict};
use crate::{KernelError, Outcome};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use std::os::fd::OwnedFd;

/// struct nfgenmsg before the attributes.
const HEADER: usize = 4;
/// As for routes: an interrupted dump, or a question whose answer was lost, is repeated this often.
const DUMP_TRIES: usize = 5;
/// Questions of one message: their answers must fit into the socket's receive buffer, which has room for about 250.
const QUESTIONS: usize = 64;

/// What an object looks like now: its attributes.
#[derive(Debug)]
pub(super) struct Object(Vec<u8>);

impl Object {
    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes::after(&self.0, HEADER)
    }
}

/// Why a transaction did not happen; nothing of it did.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    what: What,
}

impl Failure {
    /// Another process was first, or the kernel wants it again: looking anew and trying again helps.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self.refusal.errno,
            // ENOENT and EEXIST: it went or came since it was looked at; EBUSY: it got a user. ERESTART: the generation
            // is another. ENOBUFS: the answer was lost, and whether it happened can only be seen by looking.
            Errno::ENOENT
                | Errno::EEXIST
                | Errno::EBUSY
                | Errno::ERESTART
                | Errno::EAGAIN
                | Errno::EINTR
                | Errno::ENOBUFS
        )
    }

    /// Something that the transaction is made of is not there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self.refusal.errno, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT)
    }

    /// The error of a transaction that takes nothing for granted.
    pub(super) fn into_absence(self) -> KernelError {
        if !self.is_absence() {
            return self.into_error();
        }
        KernelError::Unsupported(format!(
            "could not {}: this kernel has not what it needs: {}",
            self.what, self.refusal
        ))
    }

    pub(super) fn into_error(self) -> KernelError {
        self.refusal.into_error(format!("could not {}", self.what))
    }
}

/// One nfnetlink socket.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    sequence: u32,
    /// Whether a transaction was sent: closing the socket then waits for the kernel to free what it removed.
    changed: bool,
}

impl Wire {
    pub(super) fn open() -> Outcome<Self> {
        let socket = Socket::open_protocol(NETLINK_NETFILTER).map_err(|e| e.context("nf_tables"))?;
        Ok(Self { socket, sequence: 0, changed: false })
    }

    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    pub(super) fn into_fd(self) -> Outcome<OwnedFd> {
        self.socket
            .fd()
            .try_clone_to_owned()
            .map_err(|e| KernelError::Other(format!("could not keep the nf_tables socket: {e}")))
    }

    /// Asks all at once; the answers are in the order of the questions, `None` for what is not there.
    pub(super) fn ask(&mut self, questions: &[Message]) -> Outcome<Vec<Option<Object>>> {
        let mut answers = Vec::with_capacity(questions.len());
        for some in questions.chunks(QUESTIONS) {
            let mut tries = 1;
            let asked = loop {
                match self.ask_once(some) {
                    Err((errno, _)) if errno == Errno::ENOBUFS && tries < DUMP_TRIES => tries += 1,
                    asked => break asked.map_err(|(_, error)| error)?,
                }
            };
            answers.extend(asked);
        }
        Ok(answers)
    }

    fn ask_once(&mut self, questions: &[Message]) -> Result<Vec<Option<Object>>, (Errno, KernelError)> {
        let refused = |refusal: Refusal, question| (refusal.errno, refused(refusal, question));
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for question in questions {
            self.sequence = self.sequence.wrapping_add(1);
            question.write(&mut bytes, 0, self.sequence);
        }
        // Without NLM_F_ACK each gets exactly one answer: the object or the error.
        self.socket.send(&bytes).map_err(|e| refused(e, questions.first()))?;
        let mut answers: Vec<Option<Object>> = Vec::with_capacity(questions.len());
        let mut failed = None;
        // A refusal may be of all questions at once and be the only answer (`nfnetlink_rcv`, without CAP_NET_ADMIN).
        // Answers that come behind it have numbers of the past for the next question.
        while answers.len() < questions.len() && failed.is_none() {
            let received = self.socket.receive(|header, payload| {
                let Some(question) = questions.get(answers.len()) else { return };
                if header.sequence_number != first.wrapping_add(answers.len() as u32) {
                    return;
                }
                match header.message_type {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => {
                        if let Some(refusal) = verdict(header, payload).filter(|r| r.errno != Errno::ENOENT) {
                            failed.get_or_insert_with(|| refused(refusal, Some(question)));
                        }
                        answers.push(None);
                    }
                    _ => answers.push(Some(Object(payload.to_vec()))),
                }
            });
            received.map_err(|e| refused(e, questions.get(answers.len())))?;
        }
        failed.map_or(Ok(answers), Err)
    }

    /// All objects of a list; none when the list itself is not there.
    pub(super) fn list(&mut self, question: &Message) -> Outcome<Vec<Object>> {
        self.list_of(question, |_| true)
    }

    /// Those of a list that are wanted; the others, which may be hundreds of thousands, are not kept.
    pub(super) fn list_of(&mut self, question: &Message, wanted: impl Fn(&Object) -> bool) -> Outcome<Vec<Object>> {
        for _ in 1..DUMP_TRIES {
            if let (objects, false) = self.list_once(question, &wanted)? {
                return Ok(objects);
            }
        }
        Ok(self.list_once(question, &wanted)?.0)
    }

    fn list_once(&mut self, question: &Message, wanted: impl Fn(&Object) -> bool) -> Outcome<(Vec<Object>, bool)> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut bytes = Vec::new();
        question.write(&mut bytes, NLM_F_DUMP, sequence);
        self.socket.send(&bytes).map_err(|e| refused(e, Some(question)))?;
        let mut objects = Vec::new();
        let mut interrupted = false;
        let mut end = None;
        while end.is_none() {
            let received = self.socket.receive(|header, payload| {
                if header.sequence_number != sequence {
                    return;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.message_type {
                    NLMSG_NOOP => {}
                    NLMSG_DONE | NLMSG_ERROR => end = Some(verdict(header, payload)),
                    _ => objects.extend(Some(Object(payload.to_vec())).filter(&wanted)),
                }
            });
            received.map_err(|e| refused(e, Some(question)))?;
        }
        match end.flatten() {
            Some(refusal) if refusal.errno == Errno::ENOENT => Ok((Vec::new(), false)),
            Some(refusal) => Err(refused(refusal, Some(question))),
            None => Ok((objects, interrupted)),
        }
    }

    /// One message outside of transactions.
    pub(super) fn order(&mut self, message: &Message) -> Outcome<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut bytes = Vec::new();
        message.write(&mut bytes, NLM_F_ACK, sequence);
        self.socket.send(&bytes).map_err(|e| refused(e, Some(message)))?;
        let mut answer = None;
        while answer.is_none() {
            let received = self.socket.receive(|header, payload| {
                if header.sequence_number == sequence && header.message_type == NLMSG_ERROR {
                    answer = Some(verdict(header, payload));
                }
            });
            received.map_err(|e| refused(e, Some(message)))?;
        }
        answer.flatten().map_or(Ok(()), |refusal| Err(refused(refusal, Some(message))))
    }

    /// All of `changes` or nothing of it; with a generation only if nothing else has changed since that one.
    ///
    /// A refused transaction costs 5 to 15 ms: the kernel waits for an RCU grace period when it takes back
    /// (`__nf_tables_abort`). A wrong generation costs nothing: it is compared before anything is done.
    pub(super) fn commit(&mut self, changes: &[Message], generation: Option<u32>) -> Result<(), Failure> {
        self.transact(changes, generation, true)
    }

    /// The same without the end of the transaction: the kernel looks at everything and then takes it back.
    pub(super) fn rehearse(&mut self, changes: &[Message]) -> Result<(), Failure> {
        self.transact(changes, None, false)
    }

    fn transact(&mut self, changes: &[Message], generation: Option<u32>, to_its_end: bool) -> Result<(), Failure> {
        let Some((last, others)) = changes.split_last() else { return Ok(()) };
        self.changed = true;
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        Message::begin(generation).write(&mut bytes, 0, first);
        let mut sequence = first;
        for change in others {
            sequence = sequence.wrapping_add(1);
            change.write(&mut bytes, 0, sequence);
        }
        sequence = sequence.wrapping_add(1);
        let acknowledged = sequence;
        last.write(&mut bytes, NLM_F_ACK, acknowledged);
        if to_its_end {
            sequence = sequence.wrapping_add(1);
            Message::end().write(&mut bytes, 0, sequence);
        }
        self.sequence = sequence;

        let failure = |refusal: Refusal, number: u32| {
            let change = number.checked_sub(1).and_then(|at| changes.get(at as usize));
            let what = change.map_or(Message::TRANSACTION, |change| change.what.clone());
            Failure { refusal, what }
        };
        self.socket.send(&bytes).map_err(|refusal| failure(refusal, 0))?;
        // The kernel gathers the errors of all messages and sends them in order when it has committed or taken back;
        // the last message's answer, wanted or not, is the last. An error of the transaction as a whole bears the
        // number of its beginning, and then nothing else needs to come.
        let mut failed: Option<Failure> = None;
        let mut done = false;
        while !done {
            let received = self.socket.receive(|header, payload| {
                let number = header.sequence_number.wrapping_sub(first);
                if header.message_type != NLMSG_ERROR || number > acknowledged.wrapping_sub(first) {
                    return;
                }
                let refusal = verdict(header, payload);
                done |= header.sequence_number == acknowledged || (number == 0 && refusal.is_some());
                if let Some(refusal) = refusal {
                    failed.get_or_insert_with(|| failure(refusal, number));
                }
            });
            if let Err(refusal) = received {
                // EAGAIN is the socket's time limit here, not the kernel's wish to be asked again.
                let errno = if refusal.errno == Errno::EAGAIN { Errno::ETIMEDOUT } else { refusal.errno };
                return Err(failure(Refusal { errno, ..refusal }, 0));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

fn refused(refusal: Refusal, question: Option<&Message>) -> KernelError {
    let what = question.map_or_else(|| "talk to nf_tables".to_owned(), |question| question.what.to_string());
    match refusal.errno {
        // nfnetlink_rcv_msg: no such subsystem, and no module to load for it.
        Errno::EINVAL if refusal.text.is_empty() => KernelError::Unsupported(format!(
            "could not {what}: this kernel has no nf_tables (CONFIG_NF_TABLES; as a module: modprobe nf_tables)"
        )),
        _ => refusal.into_error(format!("could not {what}")),
    }
}

/// The generation in the answer to [`Message::generation`].
pub(super) fn generation_of(object: Option<&Object>) -> Option<u32> {
    seen::number(object?.attributes(), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::nftables::attribute::Attribute;
    use crate::linux::nftables::message::{FAMILY_INET, Hook, Place};
    use nix::sched::{CloneFlags, unshare};

    /// A transaction that is taken back, in a namespace of its own: what the kernel made of it, and whether anything is left.
    fn rehearsed(expressions: Vec<Attribute>) -> Result<(), KernelError> {
        let run = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut wire = Wire::open().unwrap();
            let place = Place { family: FAMILY_INET, table: "rehearsal" };
            let hook = Hook { kind: "nat", number: 4, priority: 100 };
            let changes = [
                place.add_table(),
                place.add_chain("postrouting", hook),
                place.add_rule("postrouting", expressions, ""),
            ];
            let answer = wire.rehearse(&changes).map_err(Failure::into_absence);
            assert!(wire.ask(&[place.get_table()]).unwrap()[0].is_none(), "nothing may be left");
            answer
        };
        std::thread::spawn(run).join().unwrap()
    }

    #[test]
    fn a_rehearsal_tells_what_the_kernel_lacks_and_leaves_nothing() {
        use crate::linux::nftables::attribute::{nest, text};
        use crate::linux::nftables::expression::masquerade;
        rehearsed(vec![masquerade()]).unwrap();
        let error = rehearsed(vec![nest(1, vec![text(1, "nosuch")])]).unwrap_err();
        assert!(
            matches!(&error, KernelError::Unsupported(text) if text.contains("has not what it needs")),
            "{error:?}"
        );
    }
}
