//! The EventBridge Scheduler schedules: one for each function, and one for sealing passes where they are switched on.

use async_trait::async_trait;
use aws_sdk_scheduler::types::{
    DeadLetterConfig, FlexibleTimeWindow, FlexibleTimeWindowMode, RetryPolicy, ScheduleState, Target,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use snapwarden_domain::event::Event;

use super::{
    Alias, Blueprint, Context, DeadLetterQueue, FoundOf, Kind, Role, ScheduleGroup, StepError, alias_name,
    schedule_group, under_names,
};
use crate::cloudformation::{Resource, logical_id};
use crate::environment::Environment;
use crate::error::{AwsError, Call, OrAbsent};
use crate::rights::{Condition, Purpose, Resources, Right};
use crate::scope::{Function, Scope};
use crate::wait;
use crate::world::{Found, Observed, ResourceId};

/// The kind.
#[derive(Debug)]
pub struct Schedule;

/// What is wanted of a schedule. `UpdateSchedule` resets what it is not told, so all of it is always written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Properties {
    /// `cron(…)` or `rate(…)`.
    pub expression: String,
    /// The zone of the expression.
    pub timezone: String,
    /// Minutes after the scheduled time within which it may fire; 0 for none.
    flexible_minutes: i32,
    /// Whether it fires at all.
    pub enabled: bool,
    /// Times before and after which it does not fire. We set none.
    starts: Option<String>,
    ends: Option<String>,
    /// The ARN of the alias that it invokes.
    pub target: String,
    role: String,
    /// The event that the function gets, with EventBridge Scheduler's placeholders.
    pub input: String,
    retry_attempts: i32,
    retry_max_age_seconds: i32,
    dead_letter_queue: String,
}

/// What AWS knows of a schedule that nobody wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// When it was made: a `rate(…)` counts from there.
    pub created: Option<Timestamp>,
    /// Its name on AWS, where a stack made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_as: Option<String>,
}

#[async_trait(?Send)]
impl Kind for Schedule {
    const NAME: &'static str = "schedule";
    type Properties = Properties;
    type Handle = Handle;

    fn declare(blueprint: &Blueprint<'_>) -> Vec<(String, Properties)> {
        // Where backups have ended, their schedule goes: a disabled one could be enabled by mistake.
        let fires = |function: &Function| *function != Function::Backup || blueprint.draining.is_none();
        let of_functions = Function::ALL.into_iter().filter(fires).map(|function| {
            let schedule = of(blueprint.environment, function);
            let properties = Properties {
                expression: schedule.expression.to_string(),
                timezone: blueprint.environment.timezone.to_string(),
                flexible_minutes: schedule.flexible_minutes.as_i32(),
                enabled: true,
                starts: None,
                ends: None,
                target: blueprint.scope.alias_arn(function),
                role: blueprint.scope.role_arn("scheduler"),
                input: Event::scheduler_input().to_string(),
                retry_attempts: schedule.retry.attempts.as_i32(),
                retry_max_age_seconds: schedule.retry.max_age_seconds.as_i32(),
                dead_letter_queue: blueprint.scope.dead_letter_queue_arn(),
            };
            (Scope::schedule(function).to_owned(), properties)
        });
        let sealing = blueprint.environment.has_passes().then(|| sealing(blueprint));
        of_functions.chain(sealing).collect()
    }

    fn parent(_: &str, scope: &Scope) -> Option<ResourceId> {
        Some(ResourceId::new(ScheduleGroup::NAME, scope.schedule_group()))
    }

    fn needs(name: &str, scope: &Scope) -> Vec<ResourceId> {
        let function = Function::ALL.into_iter().find(|function| Scope::schedule(*function) == name);
        let function = function.or((name == Scope::SEALING_SCHEDULE).then_some(Function::Cleanup));
        let target = function.map(|function| ResourceId::new(Alias::NAME, alias_name(scope, function)));
        let others = [
            ResourceId::new(ScheduleGroup::NAME, scope.schedule_group()),
            ResourceId::new(DeadLetterQueue::NAME, scope.dead_letter_queue()),
            ResourceId::new(Role::NAME, scope.role("scheduler")),
        ];
        target.into_iter().chain(others).collect()
    }

    fn why(name: &str, property: &str) -> Option<String> {
        let why = match property {
            "expression" | "flexible_minutes" | "retry_attempts" | "retry_max_age_seconds" | "timezone"
                if name == Scope::SEALING_SCHEDULE =>
            {
                "every 15 minutes, since only 20 copies run at a time".to_owned()
            }
            "expression" => format!("{name}.schedule.expression in the environment file"),
            "flexible_minutes" => format!("{name}.schedule.flexible_minutes in the environment file"),
            "retry_attempts" => format!("{name}.schedule.retry.attempts in the environment file"),
            "retry_max_age_seconds" => {
                format!("{name}.schedule.retry.max_age_seconds in the environment file")
            }
            "timezone" => "timezone in the environment file".to_owned(),
            "enabled" => format!("a disabled schedule never fires: no {name} at all"),
            "starts" | "ends" => format!("outside of it the schedule does not fire: no {name} at all"),
            "target" => format!("else something other than the released {name} function is invoked"),
            "role" => "else EventBridge Scheduler may lack the right to invoke the function".to_owned(),
            "dead_letter_queue" => "else events that cannot be delivered are lost without a trace".to_owned(),
            "input" => "what the function expects as its event".to_owned(),
            _ => return None,
        };
        Some(why)
    }

    fn describe(found: &FoundOf<Self>) -> String {
        let properties = &found.properties;
        let state = if properties.enabled { "" } else { ", DISABLED" };
        format!("{} {}{state}", properties.expression, properties.timezone)
    }

    fn render(blueprint: &Blueprint<'_>, name: &str, wanted: &Properties) -> Vec<Resource> {
        let window = if wanted.flexible_minutes == 0 {
            json!({ "Mode": "OFF" })
        } else {
            json!({ "Mode": "FLEXIBLE", "MaximumWindowInMinutes": wanted.flexible_minutes })
        };
        let properties = json!({
            "Name": blueprint.scope.schedule_of_a_stack(name),
            "GroupName": blueprint.scope.schedule_group(),
            "ScheduleExpression": wanted.expression,
            "ScheduleExpressionTimezone": wanted.timezone,
            "FlexibleTimeWindow": window,
            "State": wanted.state().as_str(),
            "StartDate": wanted.starts,
            "EndDate": wanted.ends,
            "Target": {
                "Arn": wanted.target,
                "RoleArn": wanted.role,
                "Input": wanted.input,
                "RetryPolicy": {
                    "MaximumRetryAttempts": wanted.retry_attempts,
                    "MaximumEventAgeInSeconds": wanted.retry_max_age_seconds,
                },
                "DeadLetterConfig": { "Arn": wanted.dead_letter_queue },
            },
        });
        vec![Resource::new(logical_id(name, "Schedule"), "AWS::Scheduler::Schedule", properties)]
    }

    fn rights(purpose: Purpose) -> &'static [Right] {
        match purpose {
            Purpose::Observe => {
                const {
                    &[
                        Right::on(Resources::ScheduleGroup, "scheduler:GetScheduleGroup"),
                        Right::on(Resources::Everything, "scheduler:ListSchedules"),
                        Right::on(Resources::Schedules, "scheduler:GetSchedule"),
                    ]
                }
            }
            Purpose::Create => {
                const {
                    &[
                        Right::on(Resources::Schedules, "scheduler:CreateSchedule"),
                        Right::on(Resources::SchedulerRole, "iam:PassRole")
                            .when(Condition::PassedTo("scheduler.amazonaws.com")),
                    ]
                }
            }
            Purpose::Update => {
                const {
                    &[
                        Right::on(Resources::Schedules, "scheduler:UpdateSchedule"),
                        Right::on(Resources::SchedulerRole, "iam:PassRole")
                            .when(Condition::PassedTo("scheduler.amazonaws.com")),
                    ]
                }
            }
            Purpose::Delete => const { &[Right::on(Resources::Schedules, "scheduler:DeleteSchedule")] },
        }
    }

    /// Whatever is in our group, also what we no longer want.
    async fn observe(cx: &Context) -> Result<Vec<(String, FoundOf<Self>)>, AwsError> {
        let group = cx.scope.schedule_group();
        // The schedules of a group that is being deleted are still listed for a while.
        if !schedule_group::is_there(cx, &group).await? {
            return Ok(Vec::new());
        }
        let pages = cx.aws.scheduler.list_schedules().group_name(&group).into_paginator().items().send();
        let mut names = Vec::new();
        for listed in pages.collect::<Vec<_>>().await {
            // Without the group there are no schedules.
            let Some(listed) = listed.call("scheduler:ListSchedules").or_absent()? else { break };
            names.push(listed.name.unwrap_or_default());
        }
        // What a stack made has a name of its own, and stands in for ours unless that is there too.
        let made_for = |name: &str| {
            let ours = Function::ALL.map(Scope::schedule).into_iter().chain([Scope::SEALING_SCHEDULE]);
            let mut absent = ours.filter(|ours| !names.iter().any(|name| name == ours));
            absent.find(|ours| cx.scope.schedule_of_a_stack(ours) == name)
        };
        let found = under_names(names.clone(), async |name| {
            let answer = cx.aws.scheduler.get_schedule().group_name(&group).name(name).send().await;
            let Some(schedule) = answer.call("scheduler:GetSchedule").or_absent()? else { return Ok(None) };
            let created = schedule.creation_date.and_then(|date| Timestamp::from_second(date.secs()).ok());
            let window = schedule.flexible_time_window.and_then(|window| window.maximum_window_in_minutes);
            let target = schedule.target;
            let retry = target.as_ref().and_then(|target| target.retry_policy.as_ref());
            let properties = Properties {
                expression: schedule.schedule_expression.unwrap_or_default(),
                // AWS's default where none is set.
                timezone: schedule.schedule_expression_timezone.unwrap_or_else(|| "UTC".to_owned()),
                flexible_minutes: window.unwrap_or_default(),
                enabled: schedule.state == Some(ScheduleState::Enabled),
                starts: schedule.start_date.map(|date| date.to_string()),
                ends: schedule.end_date.map(|date| date.to_string()),
                retry_attempts: retry.and_then(|retry| retry.maximum_retry_attempts).unwrap_or(185),
                retry_max_age_seconds: retry
                    .and_then(|retry| retry.maximum_event_age_in_seconds)
                    .unwrap_or(86_400),
                target: target.as_ref().map(|target| target.arn.clone()).unwrap_or_default(),
                role: target.as_ref().map(|target| target.role_arn.clone()).unwrap_or_default(),
                input: target.as_ref().and_then(|target| target.input.clone()).unwrap_or_default(),
                dead_letter_queue: target
                    .and_then(|target| target.dead_letter_config)
                    .and_then(|config| config.arn)
                    .unwrap_or_default(),
            };
            let handle = Handle { created, made_as: made_for(name).map(|_| name.to_owned()) };
            Ok(Some(Found { properties, handle, tags: None, revision: None }))
        });
        let found = found.await?.into_iter();
        Ok(found.map(|(name, found)| (made_for(&name).map_or(name, str::to_owned), found)).collect())
    }

    async fn create(cx: &Context, name: &str, wanted: &Properties) -> Result<(), StepError> {
        let (window, target) = (wanted.window()?, wanted.target()?);
        wait::retry(cx, &[wait::ROLE_FOR_SCHEDULER], async || {
            let call = cx.aws.scheduler.create_schedule().group_name(cx.scope.schedule_group()).name(name);
            let call =
                call.schedule_expression(&wanted.expression).schedule_expression_timezone(&wanted.timezone);
            let call = call.flexible_time_window(window.clone()).target(target.clone()).state(wanted.state());
            match call.send().await.call("scheduler:CreateSchedule") {
                Err(error) if error.code == "ConflictException" => Err(error.already_exists()),
                answer => answer,
            }
        })
        .await?;
        Ok(())
    }

    async fn update(
        cx: &Context,
        name: &str,
        found: &FoundOf<Self>,
        wanted: &Properties,
    ) -> Result<(), StepError> {
        let name = found.handle.made_as.as_deref().unwrap_or(name);
        let (window, target) = (wanted.window()?, wanted.target()?);
        wait::retry(cx, &[wait::ROLE_FOR_SCHEDULER], async || {
            let call = cx.aws.scheduler.update_schedule().group_name(cx.scope.schedule_group()).name(name);
            let call =
                call.schedule_expression(&wanted.expression).schedule_expression_timezone(&wanted.timezone);
            let call = call.flexible_time_window(window.clone()).target(target.clone()).state(wanted.state());
            call.send().await.call("scheduler:UpdateSchedule")
        })
        .await?;
        Ok(())
    }

    async fn delete(cx: &Context, name: &str, found: &FoundOf<Self>) -> Result<(), StepError> {
        let name = found.handle.made_as.as_deref().unwrap_or(name);
        let call = cx.aws.scheduler.delete_schedule().group_name(cx.scope.schedule_group()).name(name);
        call.send().await.call("scheduler:DeleteSchedule").or_absent()?;
        Ok(())
    }
}

impl Schedule {
    /// Whether some of the schedules that there are were made by a stack, whatever the environment's file says.
    pub fn of_a_stack(observed: &Observed) -> bool {
        let schedules = observed.iter().filter(|(id, _)| id.kind == Self::NAME);
        let mut handles = schedules.map(|(_, found)| &found.handle);
        handles.any(|handle| handle["made_as"].is_string())
    }

    /// Deletes the schedules of the direct engine that a stack has made anew: after those of the stack are there, so that
    /// no night is without. Tells which.
    pub async fn leave_to_stack(cx: &Context) -> Result<Vec<String>, AwsError> {
        let group = cx.scope.schedule_group();
        let mut left = Vec::new();
        for name in Function::ALL.map(Scope::schedule).into_iter().chain([Scope::SEALING_SCHEDULE]) {
            let is_there = async |name: &str| {
                let call = cx.aws.scheduler.get_schedule().group_name(&group).name(name).send().await;
                Ok::<_, AwsError>(call.call("scheduler:GetSchedule").or_absent()?.is_some())
            };
            if is_there(name).await? && is_there(&cx.scope.schedule_of_a_stack(name)).await? {
                let call = cx.aws.scheduler.delete_schedule().group_name(&group).name(name);
                call.send().await.call("scheduler:DeleteSchedule").or_absent()?;
                left.push(name.to_owned());
            }
        }
        Ok(left)
    }
}

impl Properties {
    fn state(&self) -> ScheduleState {
        if self.enabled { ScheduleState::Enabled } else { ScheduleState::Disabled }
    }

    fn window(&self) -> Result<FlexibleTimeWindow, StepError> {
        let window = FlexibleTimeWindow::builder();
        let window = if self.flexible_minutes == 0 {
            window.mode(FlexibleTimeWindowMode::Off)
        } else {
            window.mode(FlexibleTimeWindowMode::Flexible).maximum_window_in_minutes(self.flexible_minutes)
        };
        window.build().map_err(|error| StepError::Malformed(error.to_string()))
    }

    fn target(&self) -> Result<Target, StepError> {
        let retry = RetryPolicy::builder()
            .maximum_retry_attempts(self.retry_attempts)
            .maximum_event_age_in_seconds(self.retry_max_age_seconds)
            .build();
        Target::builder()
            .arn(&self.target)
            .role_arn(&self.role)
            .input(&self.input)
            .retry_policy(retry)
            .dead_letter_config(DeadLetterConfig::builder().arn(&self.dead_letter_queue).build())
            .build()
            .map_err(|error| StepError::Malformed(error.to_string()))
    }
}

/// Sealing passes: often, since only so many copies run at a time, and without retries, since the next pass is near.
fn sealing(blueprint: &Blueprint<'_>) -> (String, Properties) {
    let properties = Properties {
        expression: "rate(15 minutes)".to_owned(),
        timezone: "UTC".to_owned(),
        flexible_minutes: 0,
        enabled: true,
        starts: None,
        ends: None,
        target: blueprint.scope.alias_arn(Function::Cleanup),
        role: blueprint.scope.role_arn("scheduler"),
        input: Event::sealing_input().to_string(),
        retry_attempts: 0,
        retry_max_age_seconds: 900,
        dead_letter_queue: blueprint.scope.dead_letter_queue_arn(),
    };
    (Scope::SEALING_SCHEDULE.to_owned(), properties)
}

fn of(environment: &Environment, function: Function) -> &crate::environment::Schedule {
    match function {
        Function::Backup => &environment.backup.schedule,
        Function::Cleanup => &environment.cleanup.schedule,
    }
}
