//! Deprovision: power off → withdraw target → release network → remove volumes → forget.
//!
//! It takes away, so it is never undone: what fails is tried until it succeeds, and is visibly stuck meanwhile.

use async_trait::async_trait;
use bmi_drivers::isolation::Attachment;
use bmi_drivers::power::PowerState;
use bmi_workflow::{Observed, OnFailure, Step, StepError, Workflow};

use super::context::{Context, driver_error};
use super::{provision, target, volumes};

pub(super) fn workflow() -> Workflow<Context> {
    Workflow {
        kind: "deprovision",
        steps: vec![
            Box::new(PowerOff),
            Box::new(WithdrawTarget),
            Box::new(ReleaseNetwork),
            Box::new(RemoveVolumes),
            Box::new(Forget),
        ],
        on_failure: OnFailure::Persist,
    }
}

struct PowerOff;

#[async_trait]
impl Step<Context> for PowerOff {
    fn name(&self) -> &'static str {
        "power-off"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let Some(record) = context.instance().await? else { return Ok(Observed::Done) };
        let power = context.app.power.observe(record.instance.node).await;
        Ok(match power.map_err(driver_error)? {
            PowerState::Off | PowerState::ByHand => Observed::Done,
            PowerState::On => Observed::NotDone,
        })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let Some(record) = context.instance().await? else { return Ok(()) };
        let off = context.app.power.ensure_off(record.instance.node).await;
        off.map_err(driver_error)
    }

    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

struct WithdrawTarget;

#[async_trait]
impl Step<Context> for WithdrawTarget {
    fn name(&self) -> &'static str {
        "withdraw-target"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        match context.instance().await? {
            Some(record) => target::is_withdrawn(context, &record).await,
            None => Ok(Observed::Done),
        }
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        match context.instance().await? {
            Some(record) => target::withdraw(context, &record).await,
            None => Ok(()),
        }
    }

    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

struct ReleaseNetwork;

#[async_trait]
impl Step<Context> for ReleaseNetwork {
    fn name(&self) -> &'static str {
        "release-network"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let Some(record) = context.instance().await? else { return Ok(Observed::Done) };
        let attachment = context.app.isolation.observe(record.instance.node, record.instance.network).await;
        Ok(match attachment.map_err(driver_error)? {
            Attachment::Detached | Attachment::Permanent => Observed::Done,
            Attachment::Attached | Attachment::Elsewhere => Observed::NotDone,
        })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let Some(record) = context.instance().await? else { return Ok(()) };
        let detached = context.app.isolation.detach(record.instance.node, record.instance.network).await;
        detached.map_err(driver_error)
    }

    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

struct RemoveVolumes;

#[async_trait]
impl Step<Context> for RemoveVolumes {
    fn name(&self) -> &'static str {
        "remove-volumes"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        match context.instance().await? {
            Some(record) => volumes::none_exists(context, &record).await,
            None => Ok(Observed::Done),
        }
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        match context.instance().await? {
            Some(record) => volumes::remove(context, &record).await,
            None => Ok(()),
        }
    }

    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

struct Forget;

#[async_trait]
impl Step<Context> for Forget {
    fn name(&self) -> &'static str {
        "forget"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        Ok(if context.instance().await?.is_some() { Observed::NotDone } else { Observed::Done })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        provision::forget(context).await
    }

    async fn undo(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }
}
