//! One component for one call: its limits, its store, its exports.

use crate::bindings::types;
use crate::deadline::Deadline;
use crate::imports;
use crate::prepared::{self, Plugin};
use crate::session::Session;
use sandwire_cni::{Command, Error, code};
use sandwire_policy::Grant;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower, ResourceTable,
};
use wasmtime::{Engine, ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// What a store holds: the session, while this guest runs in it, and what is this guest's alone.
pub(crate) struct Guest {
    session: Option<Box<Session>>,
    /// What it may do.
    pub(crate) grant: Arc<Grant>,
    /// Its handles.
    pub(crate) table: ResourceTable,
    /// Bytes it has logged.
    pub(crate) logged: usize,
    limits: Bounds,
    wasi: Option<(WasiCtx, MemoryOutputPipe)>,
}

/// wasmtime's limits are each memory's; a component may have many.
struct Bounds {
    /// What all memories together may still grow by.
    memory_bytes: usize,
    each: StoreLimits,
}

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        match self.memory_bytes.checked_sub(desired.saturating_sub(current)) {
            Some(left) if self.each.memory_growing(current, desired, maximum)? => {
                self.memory_bytes = left;
                Ok(true)
            }
            Some(_) => Ok(false),
            None => Err(wasmtime::format_err!("forcing trap when growing memory to {desired} bytes")),
        }
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.each.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.each.instances()
    }

    fn tables(&self) -> usize {
        self.each.tables()
    }

    fn memories(&self) -> usize {
        self.each.memories()
    }
}

impl Guest {
    /// What is left in a store whose guest has ended.
    fn gone(grant: Arc<Grant>) -> Self {
        Self {
            session: None,
            grant,
            table: ResourceTable::new(),
            logged: 0,
            limits: Bounds { memory_bytes: 0, each: StoreLimits::default() },
            wasi: None,
        }
    }

    /// The session.
    ///
    /// # Errors
    /// A trap: a guest that runs has it, and one whose delegate runs is not running.
    pub(crate) fn session(&mut self) -> wasmtime::Result<&mut Session> {
        self.session.as_deref_mut().ok_or_else(|| wasmtime::format_err!("the session is with a delegate"))
    }

    /// Session, handles and grant at once.
    ///
    /// # Errors
    /// As `session`.
    pub(crate) fn parts(&mut self) -> wasmtime::Result<(&mut Session, &mut ResourceTable, &Grant)> {
        let session =
            self.session.as_deref_mut().ok_or_else(|| wasmtime::format_err!("the session is with a delegate"))?;
        Ok((session, &mut self.table, &self.grant))
    }

    /// Gives the session to a delegate and takes it back, with the delegate's answer.
    ///
    /// # Errors
    /// As `session`.
    pub(crate) fn lend<T>(
        &mut self,
        to: impl FnOnce(Box<Session>, &Grant) -> (Box<Session>, T),
    ) -> wasmtime::Result<T> {
        let session = self.session.take().ok_or_else(|| wasmtime::format_err!("the session is with a delegate"))?;
        let (session, answer) = to(session, &self.grant);
        self.session = Some(session);
        Ok(answer)
    }
}

impl WasiView for Guest {
    // A context without preopened directories, sockets, arguments and environment: only clocks, random numbers and an
    // output that ends in the log. The result alone goes to stdout.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let capacity = self.grant.limits.log_bytes;
        let (ctx, _) = self.wasi.get_or_insert_with(|| {
            let output = MemoryOutputPipe::new(capacity);
            (WasiCtxBuilder::new().stdout(output.clone()).stderr(output.clone()).build(), output)
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// Calls `function` of the exported interface; `None` when the component does not export it.
///
/// The session comes back whatever happens, so that its journal can be swept: a guest's trap and a panic of a host
/// function end the guest, not the call.
///
/// # Errors
/// Codes `COMPONENT_*`, `POLICY_DENIED`, `GUEST_TRAPPED`, `DEADLINE`, `LIMIT`, and the guest's own failure.
pub(crate) fn call<P, R>(
    session: Box<Session>,
    grant: Grant,
    interface: &str,
    function: &str,
    parameters: P,
) -> (Box<Session>, Result<Option<R>, Error>)
where
    P: ComponentNamedList + Lower,
    R: Lift + 'static,
    (Result<R, types::Failure>,): ComponentNamedList + Lift,
{
    let engine = session.engine.clone();
    let (linked, export) = match linked(&session, &grant, interface, function) {
        Ok((linked, Some(export))) => (linked, export),
        Ok((_, None)) => return (session, Ok(None)),
        Err(error) => return (session, Err(error)),
    };
    let (mut store, started) = match linked.started() {
        Some((store, started)) => (store, Some(started)),
        None => (store(&engine, guest(grant)), None),
    };
    store.data_mut().session = Some(session);
    // Any signal that ends the call increments the epoch once.
    store.set_epoch_deadline(1);

    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let started = match started {
            Some(started) => started,
            None => linked.instance().instantiate(&mut store)?,
        };
        let function = started.get_typed_func::<P, (Result<R, types::Failure>,)>(&mut store, &export)?;
        function.call(&mut store, parameters)
    }));
    let grant = Arc::clone(&store.data().grant);
    let guest = std::mem::replace(store.data_mut(), Guest::gone(grant));
    // The process ends with the call and frees all at once: unmapping a guest's memory and code before costs 0.2 ms. Not of
    // many: each may have taken as much memory as its policy allows.
    match guest.session.as_ref().is_some_and(|session| session.delegated > 1) {
        true => drop((store, linked)),
        false => std::mem::forget((store, linked)),
    }
    finish(guest, outcome)
}

/// A component that has been started, with its store.
pub(crate) type Started = (Store<Guest>, Instance);

fn store(engine: &Engine, guest: Guest) -> Store<Guest> {
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.limits);
    store.set_hostcall_fuel(store.data().grant.limits.hostcall_bytes);
    store.epoch_deadline_trap();
    store
}

/// What a component may have that is started for the image, far more than any of ours: its tables and functions are in the image, which
/// is as large as all of them, and has an end.
const OF_IMAGE: usize = 16;
const TABLE_ELEMENTS_OF_IMAGE: usize = 10_000;
const CODE_OF_IMAGE: usize = 4 << 20;

/// Starts a component for a call that is still to come. Only for one of which no code runs then (`Grant::no_start`): what wasmtime
/// itself compiles for it fills its tables.
///
/// # Errors
/// When it can't be started, or is too large for that.
pub(crate) fn start(engine: &Engine, instance: &InstancePre<Guest>, grant: &Grant) -> wasmtime::Result<Started> {
    let code = instance.component().image_range();
    if code.end.addr() - code.start.addr() > CODE_OF_IMAGE {
        return Err(wasmtime::format_err!("more code than {CODE_OF_IMAGE} bytes"));
    }
    let mut its = guest(grant.clone());
    let small = StoreLimitsBuilder::new()
        .memory_size(grant.limits.memory_bytes)
        .table_elements(TABLE_ELEMENTS_OF_IMAGE)
        .instances(OF_IMAGE)
        .memories(OF_IMAGE)
        .tables(OF_IMAGE)
        .build();
    let limits = std::mem::replace(&mut its.limits.each, small);
    let mut store = store(engine, its);
    store.set_epoch_deadline(1);
    let started = instance.instantiate(&mut store)?;
    store.data_mut().limits.each = limits;
    // wasmtime asks for the numbers once.
    store.limiter(|guest| &mut guest.limits);
    Ok((store, started))
}

/// A component with what it imports.
enum Linked {
    /// Before this process began.
    Before(&'static Plugin),
    Now(InstancePre<Guest>),
}

impl Linked {
    fn started(&self) -> Option<Started> {
        match self {
            Self::Before(plugin) => plugin.started(),
            Self::Now(_) => None,
        }
    }

    fn instance(&self) -> &InstancePre<Guest> {
        match self {
            Self::Before(plugin) => plugin.instance(),
            Self::Now(instance) => instance,
        }
    }
}

/// The component of a grant, and its function, if it exports it.
fn linked(
    session: &Session,
    grant: &Grant,
    interface: &str,
    function: &str,
) -> Result<(Linked, Option<ComponentExportIndex>), Error> {
    if let Some(plugin) = prepared::plugin(&session.generation, grant) {
        return Ok((Linked::Before(plugin), plugin.export(&session.engine, interface, function)));
    }
    let component = session.generation.component(&session.engine, grant)?;
    let export = export(&session.engine, &component, interface, function);
    Ok((Linked::Now(imports::link(&session.engine, &component, grant)?), export))
}

fn guest(grant: Grant) -> Guest {
    let limits = StoreLimitsBuilder::new()
        .memory_size(grant.limits.memory_bytes)
        .table_elements(grant.limits.table_elements)
        .instances(grant.limits.instances)
        .memories(grant.limits.instances)
        .tables(grant.limits.instances)
        .trap_on_grow_failure(true)
        .build();
    let mut table = ResourceTable::new();
    table.set_max_capacity(grant.limits.handles);
    let limits = Bounds { memory_bytes: grant.limits.memory_bytes, each: limits };
    Guest { session: None, grant: Arc::new(grant), table, logged: 0, limits, wasi: None }
}

type Outcome<R> = std::thread::Result<wasmtime::Result<(Result<R, types::Failure>,)>>;

fn finish<R>(mut guest: Guest, outcome: Outcome<R>) -> (Box<Session>, Result<Option<R>, Error>) {
    if let Some((_, output)) = guest.wasi.take() {
        for line in String::from_utf8_lossy(&output.contents()).lines() {
            crate::log::line(&mut guest, "info", "stdout", line);
        }
    }
    let plugin = guest.grant.plugin.clone();
    let Some(session) = guest.session.take() else {
        // Only a panic inside a delegate's host function could leave it there; without a session there is nothing to
        // undo from, and the journal on disk is swept by the next call.
        crate::log::fatal(&format!("plugin {plugin:?}: the session was lost"));
    };
    let result = match outcome {
        Ok(Ok((Ok(answer),))) => Ok(Some(answer)),
        Ok(Ok((Err(failure),))) => Err(Error {
            // 0 is no error code (specification, section "Error"): a guest that says so has failed all the same.
            code: if failure.code == 0 { code::INTERNAL } else { failure.code },
            msg: failure.msg,
            details: failure.details,
        }),
        Ok(Err(trap)) => Err(trapped(&plugin, &session, &trap)),
        Err(_) => Err(Error {
            code: code::INTERNAL,
            msg: format!("sandwire failed while it did something for plugin {plugin:?}"),
            details: "this is a bug of sandwire; the message of the failure is in the log (stderr)".into(),
        }),
    };
    (session, result)
}

/// What mmap(2) refused, under RLIMIT_AS or on a machine without memory: no fault of the component.
pub(crate) fn no_memory(plugin: &str, text: &str) -> Option<Error> {
    text.contains(&format!("(os error {})", libc::ENOMEM)).then(|| Error {
        code: code::LIMIT,
        msg: format!("there is too little memory for plugin {plugin:?}"),
        details: format!(
            "{text}; a plugin reserves 64 MiB of addresses and uses few of them: raise the limit of what calls it (RLIMIT_AS: ulimit -v, or LimitAS= of the runtime's unit), or free memory"
        ),
    })
}

/// What a trap means to an operator.
fn trapped(plugin: &str, session: &Session, trap: &wasmtime::Error) -> Error {
    if let Some(reason) = session.deadline.reason() {
        let waited = Deadline::waited().map(|what| format!("{what}; ")).unwrap_or_default();
        let then = match session.subject.verb {
            Command::Add => "everything it had done is being undone; the limit is deadline_ms in its policy",
            // Repeated, not undone.
            Command::Del | Command::Gc => {
                "what is left to do is in the journal, for the next call; the limit is deadline_ms in its policy"
            }
            _ => "the limit is deadline_ms in its policy",
        };
        return Error { code: code::DEADLINE, msg: format!("plugin {plugin:?} {reason}"), details: waited + then };
    }
    let text = format!("{trap:#}");
    // wasmtime has no type for these: the limiter's and the fuel's texts are all there is.
    let limit =
        ["memory minimum size", "forcing trap when growing", "too many", "fuel", "count too high", "table full"]
            .iter()
            .any(|part| text.contains(part))
            || trap.downcast_ref::<wasmtime::component::ResourceTableError>().is_some();
    if let Some(error) = no_memory(plugin, &text) {
        return error;
    }
    if limit {
        return Error {
            code: code::LIMIT,
            msg: format!("plugin {plugin:?} used more than its policy allows"),
            details: format!(
                "{text}; the limits are memory_mib, instances, table_elements, handles and hostcall_kib in its policy"
            ),
        };
    }
    Error {
        code: code::GUEST_TRAPPED,
        msg: format!("plugin {plugin:?} crashed"),
        details: format!("{text}; this is a bug of the plugin, and nothing outside of its sandbox was affected"),
    }
}

/// The function of an exported interface, of whatever 0.1.x the component was built against.
pub(crate) fn export(
    engine: &Engine,
    component: &Component,
    interface: &str,
    function: &str,
) -> Option<ComponentExportIndex> {
    let prefix = format!("{}{interface}@0.1.", imports::PACKAGE);
    let kind = component.component_type();
    let (name, _) = kind.exports(engine).find(|(name, _)| name.starts_with(&prefix))?;
    let instance = component.get_export_index(None, name)?;
    component.get_export_index(Some(&instance), function)
}
