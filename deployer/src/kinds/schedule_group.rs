//! The EventBridge Scheduler group that holds both schedules; schedules carry no tags, their group does.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_scheduler::types::{ScheduleGroupState, Tag};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Blueprint, Context, FoundOf, Kind, StepError, tags};
use crate::cloudformation::{self, Resource};
use crate::draining;
use crate::error::{AwsError, Call, ErrorClass, OrAbsent};
use crate::rights::{Purpose, Resources, Right};
use crate::wait;
use crate::world::Found;

/// The kind.
#[derive(Debug)]
pub struct ScheduleGroup;

/// What is wanted of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    tags: BTreeMap<String, String>,
}

const DELETION_LIMIT: Duration = Duration::from_mins(5);

#[async_trait(?Send)]
impl Kind for ScheduleGroup {
    const NAME: &'static str = "schedule group";
    type Properties = Properties;
    type Handle = ();

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        let draining = blueprint.draining.map(|draining| (draining::TAG.to_owned(), draining.to_string()));
        let tags = blueprint.tags().into_iter().chain(draining).collect();
        vec![(blueprint.scope.schedule_group(), Properties { tags })]
    }

    fn describe(_: &FoundOf<Self>) -> String {
        String::new()
    }

    fn render(_: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let properties = json!({ "Name": name, "Tags": cloudformation::tags(&wanted.tags) });
        vec![Resource::new("ScheduleGroup", "AWS::Scheduler::ScheduleGroup", properties)]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::ScheduleGroup, "scheduler:GetScheduleGroup"),
                        Right::on(Resources::ScheduleGroup, "scheduler:ListTagsForResource"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::ScheduleGroup, "scheduler:CreateScheduleGroup"),
                        Right::on(Resources::ScheduleGroup, "scheduler:TagResource"),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::ScheduleGroup, "scheduler:TagResource"),
                        Right::on(Resources::ScheduleGroup, "scheduler:UntagResource"),
                    ]
                }
            }
            Purpose::Delete => {
                const {
                    &[
                        Right::on(Resources::ScheduleGroup, "scheduler:DeleteScheduleGroup"),
                        Right::on(Resources::ScheduleGroup, "scheduler:GetScheduleGroup"),
                    ]
                }
            }
        }
    }

    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let name = cx.scope.schedule_group();
        if !is_there(cx, &name).await? {
            return Ok(Vec::new());
        }
        let call = cx.aws.scheduler.list_tags_for_resource().resource_arn(cx.scope.schedule_group_arn());
        let Some(listed) = call.send().await.call("scheduler:ListTagsForResource").or_absent()? else {
            return Ok(Vec::new());
        };
        let listed = listed.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value));
        let tags = tags::without_reserved(listed);
        Ok(vec![(
            name,
            Found {
                properties: Properties { tags: tags.clone() },
                handle: (),
                tags: Some(tags),
                revision: None,
            },
        )])
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let tags = scheduler_tags(&wanted.tags)?;
        wait::retry(cx, &[wait::GROUP_DELETION], async || {
            let call = cx.aws.scheduler.create_schedule_group().name(name).set_tags(Some(tags.clone()));
            match call.send().await.call("scheduler:CreateScheduleGroup") {
                Ok(_) => Ok(()),
                // A conflict with a group that is there for good is no reason to wait.
                Err(error)
                    if error.class == ErrorClass::Conflict && is_there(cx, name).await.unwrap_or(false) =>
                {
                    Err(error.already_exists())
                }
                Err(error) => Err(error),
            }
        })
        .await?;
        Ok(())
    }

    async fn update(
        cx: &Context,
        _: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let arn = cx.scope.schedule_group_arn();
        let write = tags::to_write(&wanted.tags, &found.properties.tags);
        if !write.is_empty() {
            let call =
                cx.aws.scheduler.tag_resource().resource_arn(&arn).set_tags(Some(scheduler_tags(&write)?));
            call.send().await.call("scheduler:TagResource")?;
        }
        let remove = tags::to_remove(&wanted.tags, &found.properties.tags);
        if !remove.is_empty() {
            let call = cx.aws.scheduler.untag_resource().resource_arn(&arn).set_tag_keys(Some(remove));
            call.send().await.call("scheduler:UntagResource")?;
        }
        Ok(())
    }

    async fn delete(cx: &Context, name: &str, _: &FoundOf<Self>) -> Result<(), StepError> {
        cx.aws
            .scheduler
            .delete_schedule_group()
            .name(name)
            .send()
            .await
            .call("scheduler:DeleteScheduleGroup")
            .or_absent()?;
        let text = "EventBridge Scheduler to delete the schedule group";
        let what = "EventBridge Scheduler did not delete the schedule group";
        wait::until_gone(cx, text, what, DELETION_LIMIT, async || {
            let group = cx.aws.scheduler.get_schedule_group().name(name).send().await;
            Ok(group.call("scheduler:GetScheduleGroup").or_absent()?.is_none())
        })
        .await
    }
}

/// A group that is being deleted counts as gone.
pub(super) async fn is_there(cx: &Context, name: &str) -> Result<bool, AwsError> {
    let answer = cx.aws.scheduler.get_schedule_group().name(name).send().await;
    let group = answer.call("scheduler:GetScheduleGroup").or_absent()?;
    Ok(group.is_some_and(|group| group.state != Some(ScheduleGroupState::Deleting)))
}

fn scheduler_tags(tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, StepError> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect::<Result<_, _>>()
        .map_err(|error| StepError::Malformed(error.to_string()))
}
