//! Provision: claim node → prepare image → prepare network → expose target → power on.
//!
//! When a step fails for good, everything is undone and the instance vanishes; the operation stays and says why.

use async_trait::async_trait;
use bmi_api::InstanceState;
use bmi_drivers::isolation::Attachment;
use bmi_drivers::power::PowerState;
use bmi_workflow::{Observed, OnFailure, Step, StepError, Workflow};

use super::context::{Context, app_error, driver_error};
use super::{target, volumes};
use crate::error::AppError;

pub(super) fn workflow() -> Workflow<Context> {
    Workflow {
        kind: "provision",
        steps: vec![
            Box::new(ClaimNode),
            Box::new(PrepareImage),
            Box::new(PrepareNetwork),
            Box::new(ExposeTarget),
            Box::new(PowerOn),
        ],
        on_failure: OnFailure::Unwind,
    }
}

/// The request claimed the node and took the addresses in its own transaction; this step is there to undo that.
struct ClaimNode;

#[async_trait]
impl Step<Context> for ClaimNode {
    fn name(&self) -> &'static str {
        "claim-node"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        context.instance_there().await.map(|_| Observed::Done)
    }

    async fn apply(&self, _context: &Context) -> Result<(), StepError> {
        Ok(())
    }

    async fn undo(&self, context: &Context) -> Result<(), StepError> {
        forget(context).await
    }
}

/// Removes the instance and gives its node back.
pub(super) async fn forget(context: &Context) -> Result<(), StepError> {
    let Some(record) = context.instance().await? else { return Ok(()) };
    let (id, node) = (record.instance.id, record.instance.node);
    context
        .app
        .db
        .system_write(move |tx| {
            bmi_db::instance::delete(tx, id)?;
            Ok::<_, AppError>(bmi_db::node::unclaim(tx, node)?)
        })
        .await
        .map_err(app_error)
}

struct PrepareImage;

#[async_trait]
impl Step<Context> for PrepareImage {
    fn name(&self) -> &'static str {
        "prepare-image"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        volumes::both_exist(context, &context.instance_there().await?).await
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        volumes::make(context, &context.instance_there().await?).await
    }

    async fn undo(&self, context: &Context) -> Result<(), StepError> {
        match context.instance().await? {
            Some(record) => volumes::remove(context, &record).await,
            None => Ok(()),
        }
    }
}

struct PrepareNetwork;

#[async_trait]
impl Step<Context> for PrepareNetwork {
    fn name(&self) -> &'static str {
        "prepare-network"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let instance = context.instance_there().await?.instance;
        let attachment = context.app.isolation.observe(instance.node, instance.network).await;
        Ok(match attachment.map_err(driver_error)? {
            Attachment::Attached | Attachment::Permanent => Observed::Done,
            Attachment::Detached | Attachment::Elsewhere => Observed::NotDone,
        })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let instance = context.instance_there().await?.instance;
        let attached = context.app.isolation.attach(instance.node, instance.network).await;
        attached.map_err(driver_error)
    }

    async fn undo(&self, context: &Context) -> Result<(), StepError> {
        let Some(record) = context.instance().await? else { return Ok(()) };
        let detached = context.app.isolation.detach(record.instance.node, record.instance.network).await;
        detached.map_err(driver_error)
    }
}

struct ExposeTarget;

#[async_trait]
impl Step<Context> for ExposeTarget {
    fn name(&self) -> &'static str {
        "expose-target"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        target::is_exposed(context, &context.instance_there().await?).await
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        target::expose(context, &context.instance_there().await?).await
    }

    async fn undo(&self, context: &Context) -> Result<(), StepError> {
        match context.instance().await? {
            Some(record) => target::withdraw(context, &record).await,
            None => Ok(()),
        }
    }
}

struct PowerOn;

#[async_trait]
impl Step<Context> for PowerOn {
    fn name(&self) -> &'static str {
        "power-on"
    }

    async fn observe(&self, context: &Context) -> Result<Observed, StepError> {
        let instance = context.instance_there().await?.instance;
        if instance.state == InstanceState::Provisioning {
            return Ok(Observed::NotDone);
        }
        let power = context.app.power.observe(instance.node).await;
        Ok(match power.map_err(driver_error)? {
            PowerState::On | PowerState::ByHand => Observed::Done,
            PowerState::Off => Observed::NotDone,
        })
    }

    async fn apply(&self, context: &Context) -> Result<(), StepError> {
        let instance = context.instance_there().await?.instance;
        let (id, project) = (instance.id, instance.project);
        context
            .app
            .db
            .system_write(move |tx| {
                let from = [InstanceState::Provisioning];
                let project = tx.project(project);
                // A node that was on and asked may have logged in as soon as its target was there.
                let has_session = bmi_db::session::is_known(tx, id)?;
                let to = if has_session { InstanceState::Running } else { InstanceState::Ready };
                bmi_db::instance::state_change(tx, project, id, &from, to)?;
                Ok::<_, AppError>(())
            })
            .await
            .map_err(app_error)?;
        let on = context.app.power.ensure_on_from_network(instance.node).await;
        on.map_err(driver_error)
    }

    async fn undo(&self, context: &Context) -> Result<(), StepError> {
        let Some(record) = context.instance().await? else { return Ok(()) };
        let off = context.app.power.ensure_off(record.instance.node).await;
        off.map_err(driver_error)
    }
}
