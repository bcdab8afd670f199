"""The monthly budget."""

from __future__ import annotations

import hashlib

from aws_cdk import Aws
from aws_cdk import aws_budgets as budgets
from constructs import Construct

from infra.stage_stack import StageStack
from infra.stages import STAGE_TAG, Stage

THRESHOLDS = (("ACTUAL", 50), ("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))
"""Kind of cost and percentage of the budget at which e-mail is sent."""


class AccountStack(StageStack):
    """A monthly budget for the account, or for the stage by its cost-allocation tag.

    Sends e-mail at 50 %, 80 % and 100 %, and when the forecast exceeds it.
    """

    def __init__(self, scope: Construct, *, stage: Stage) -> None:
        super().__init__(scope, "MaskdropAccount", stage=stage, description="monthly budget")
        budgets.CfnBudget(
            self,
            "Monthly",
            budget=budgets.CfnBudget.BudgetDataProperty(
                # Budgets belong to the account, not to a Region. A change of the notifications replaces the budget: it
                # needs another name, since CloudFormation creates the new one first.
                budget_name=f"maskdrop-{stage.name}-{Aws.REGION}{_suffix(stage.mail)}",
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=stage.budget_usd, unit="USD"),
                cost_filters=_of_stage(stage) if stage.budget_scope == "stage" else None,
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN",
                        notification_type=kind,
                        threshold=percent,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[budgets.CfnBudget.SubscriberProperty(address=stage.mail, subscription_type="EMAIL")],
                )
                for kind, percent in THRESHOLDS
            ]
            if stage.mail
            else [],
        )


def _suffix(mail: str) -> str:
    """Returns a suffix that differs for other notifications."""
    return f"-{hashlib.sha256(f'{mail}{THRESHOLDS}'.encode()).hexdigest()[:6]}" if mail else ""


def _of_stage(stage: Stage) -> dict[str, list[str]]:
    """Selects the costs of resources with the stage's tag. "user:" marks tags of the user, as opposed to "aws:"."""
    return {"TagKeyValue": [f"user:{STAGE_TAG}${stage.name}"]}
