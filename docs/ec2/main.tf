# The parts of an AWS account that a Wharfinger broker needs: the notice queue, its rules, and the broker's policy.
# It creates the same as cloudformation.yaml. Use one per broker, account and region.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 5.0" }
  }
}

variable "deployment" {
  description = "The broker's `deployment`, as in its configuration; no two brokers of an account may have the same."
  type        = string
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  region  = data.aws_region.current.name
  account = data.aws_caller_identity.current.account_id
  ec2     = "arn:${data.aws_partition.current.partition}:ec2:${local.region}"
  patterns = {
    interruptions   = { source = ["aws.ec2"], "detail-type" = ["EC2 Spot Instance Interruption Warning"] }
    recommendations = { source = ["aws.ec2"], "detail-type" = ["EC2 Instance Rebalance Recommendation"] }
    states = {
      source        = ["aws.ec2"]
      "detail-type" = ["EC2 Instance State-change Notification"]
      detail        = { state = ["stopping", "stopped", "shutting-down", "terminated"] }
    }
    scheduled-changes = {
      source        = ["aws.health"]
      "detail-type" = ["AWS Health Event"]
      detail        = { service = ["EC2"], eventTypeCategory = ["scheduledChange"] }
    }
    # For hosts that are attached to an Auto Scaling group with a terminating hook.
    hooks = { source = ["aws.autoscaling"], "detail-type" = ["EC2 Instance-terminate Lifecycle Action"] }
  }
}

resource "aws_sqs_queue" "notices" {
  name = "wharfinger-${var.deployment}"
  # An older notice is of no use: its instance has ended.
  message_retention_seconds = 300
  # EventBridge cannot send to a queue with a KMS key that AWS manages.
  sqs_managed_sse_enabled = true
}

resource "aws_sqs_queue_policy" "notices" {
  queue_url = aws_sqs_queue.notices.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "EventBridgeSends"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = aws_sqs_queue.notices.arn
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
      {
        Sid       = "OnlyByTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:*"
        Resource  = aws_sqs_queue.notices.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_cloudwatch_event_rule" "notices" {
  for_each      = local.patterns
  name          = "wharfinger-${var.deployment}-${each.key}"
  event_pattern = jsonencode(each.value)
}

resource "aws_cloudwatch_event_target" "notices" {
  for_each = aws_cloudwatch_event_rule.notices
  rule     = each.value.name
  arn      = aws_sqs_queue.notices.arn
}

resource "aws_iam_policy" "broker" {
  name        = "wharfinger-${var.deployment}"
  description = "What the Wharfinger broker may do"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Look"
        Effect   = "Allow"
        Action   = ["ec2:DescribeInstances", "ec2:DescribeInstanceStatus", "ec2:DescribeLaunchTemplates"]
        Resource = "*"
      },
      {
        Sid    = "LaunchWithOurTag"
        Effect = "Allow"
        Action = ["ec2:RunInstances", "ec2:CreateFleet"]
        Resource = [
          "${local.ec2}:${local.account}:instance/*",
          "${local.ec2}:${local.account}:volume/*",
          "${local.ec2}:${local.account}:fleet/*",
        ]
        Condition = { StringEquals = { "aws:RequestTag/wharfinger:deployment" = var.deployment } }
      },
      {
        Sid    = "LaunchFrom"
        Effect = "Allow"
        Action = ["ec2:RunInstances", "ec2:CreateFleet"]
        Resource = [
          "${local.ec2}::image/*",
          "${local.ec2}:${local.account}:image/*",
          "${local.ec2}::snapshot/*",
          "${local.ec2}:${local.account}:subnet/*",
          "${local.ec2}:${local.account}:network-interface/*",
          "${local.ec2}:${local.account}:security-group/*",
          "${local.ec2}:${local.account}:launch-template/*",
          "${local.ec2}:${local.account}:spot-instances-request/*",
        ]
      },
      {
        Sid       = "MakeTemplates"
        Effect    = "Allow"
        Action    = "ec2:CreateLaunchTemplate"
        Resource  = "${local.ec2}:${local.account}:launch-template/*"
        Condition = { StringEquals = { "aws:RequestTag/wharfinger:deployment" = var.deployment } }
      },
      {
        Sid       = "TagWhatIsMade"
        Effect    = "Allow"
        Action    = "ec2:CreateTags"
        Resource  = "${local.ec2}:${local.account}:*/*"
        Condition = { StringEquals = { "ec2:CreateAction" = ["RunInstances", "CreateFleet", "CreateLaunchTemplate"] } }
      },
      {
        Sid    = "EndOurOwn"
        Effect = "Allow"
        Action = ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"]
        Resource = [
          "${local.ec2}:${local.account}:instance/*",
          "${local.ec2}:${local.account}:launch-template/*",
        ]
        Condition = { StringEquals = { "aws:ResourceTag/wharfinger:deployment" = var.deployment } }
      },
      {
        Sid      = "ImageByParameter"
        Effect   = "Allow"
        Action   = "ssm:GetParameters"
        Resource = "arn:${data.aws_partition.current.partition}:ssm:${local.region}:*:parameter/*"
      },
      {
        Sid      = "HearNotices"
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:SendMessage"]
        Resource = aws_sqs_queue.notices.arn
      },
      {
        Sid      = "LetGroupsEndHosts"
        Effect   = "Allow"
        Action   = "autoscaling:CompleteLifecycleAction"
        Resource = "arn:${data.aws_partition.current.partition}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*"
        Condition = { StringEquals = { "aws:ResourceTag/wharfinger:deployment" = var.deployment } }
      },
    ]
  })
}

output "queue" {
  description = "For `queue` in the pool's [pool.ec2]"
  value       = aws_sqs_queue.notices.id
}

output "policy_arn" {
  description = "To be attached to whatever role or user the broker runs as"
  value       = aws_iam_policy.broker.arn
}
