"""The resources that exist once per account: the budget."""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_budgets as budgets
from constructs import Construct

from infra.stages import Stage


class AccountStack(Stack):
    """A monthly budget for the account. Sends e-mail at 50 %, 80 % and 100 %, and when the forecast exceeds it."""

    def __init__(self, scope: Construct, *, stage: Stage) -> None:
        super().__init__(scope, f"MaskdropAccount-{stage.name}", description="Maskdrop: monthly budget of the account")
        thresholds = [("ACTUAL", 50), ("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100)]
        budgets.CfnBudget(
            self,
            "Monthly",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=f"maskdrop-{stage.name}",
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=stage.budget_usd, unit="USD"),
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
                for kind, percent in thresholds
            ]
            if stage.mail
            else [],
        )
