// Who is woken when the pipelines of Data Factory fail. Data Factory sees success or failure and no exit code, so the
// urgency is the lag: three hours without a sync that succeeded, also when nothing ran at all, or a window that has not
// succeeded three hours after its first try. Neither depends on how long a try takes, and a maintenance of up to three
// hours, which makes the syncs of the night fail with 75, wakes nobody.
// az deployment group create --resource-group G --template-file alerts.bicep --parameters ...

@description('The data factory that runs dicom_etl_sync and dicom_etl_maintain, in this resource group')
param factoryName string

@description('Resource id of the Log Analytics workspace that gets the runs of the pipelines')
param logWorkspaceId string

@description('Address of the people on call')
param onCallEmail string

@description('Region of the Log Analytics workspace')
param location string = resourceGroup().location

resource factory 'Microsoft.DataFactory/factories@2018-06-01' existing = {
  name: factoryName
}

resource onCall 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'dicom-etl-on-call'
  location: 'global'
  properties: {
    groupShortName: 'dicom-etl'
    enabled: true
    emailReceivers: [
      {
        name: 'on call'
        emailAddress: onCallEmail
        useCommonAlertSchema: true
      }
    ]
  }
}

resource pipelineRuns 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'dicom-etl-pipeline-runs'
  scope: factory
  properties: {
    workspaceId: logWorkspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [
      {
        category: 'PipelineRuns'
        enabled: true
      }
    ]
  }
}

resource maintainFails 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: 'dicom-etl-maintain-fails'
  location: 'global'
  properties: {
    description: 'dicom_etl_maintain failed after its four retries'
    severity: 2
    enabled: true
    scopes: [
      factory.id
    ]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT1H'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'failed'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.DataFactory/factories'
          metricName: 'PipelineFailedRuns'
          dimensions: [
            {
              name: 'Name'
              operator: 'Include'
              values: [
                'dicom_etl_maintain'
              ]
            }
          ]
          operator: 'GreaterThanOrEqual'
          threshold: 1
          timeAggregation: 'Total'
        }
      ]
    }
    actions: [
      {
        actionGroupId: onCall.id
      }
    ]
  }
}

resource syncBehind 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = {
  name: 'dicom-etl-sync-behind'
  location: location
  properties: {
    description: 'No dicom_etl_sync succeeded within three hours'
    severity: 1
    enabled: true
    scopes: [
      logWorkspaceId
    ]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT3H'
    criteria: {
      allOf: [
        {
          query: 'ADFPipelineRun | where PipelineName == "dicom_etl_sync" and Status == "Succeeded"'
          timeAggregation: 'Count'
          operator: 'LessThan'
          threshold: 1
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    // The table appears with the first run.
    skipQueryValidation: true
    actions: {
      actionGroups: [
        onCall.id
      ]
    }
  }
  dependsOn: [
    pipelineRuns
  ]
}

// A later window that succeeds does not hide one that did not: its hour is missing until somebody runs it again.
resource windowFails 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = {
  name: 'dicom-etl-window-fails'
  location: location
  properties: {
    description: 'A window of dicom_etl_sync was first tried three hours ago, has failed, and has not succeeded'
    severity: 1
    enabled: true
    scopes: [
      logWorkspaceId
    ]
    evaluationFrequency: 'PT15M'
    windowSize: 'P2D'
    criteria: {
      allOf: [
        {
          query: 'ADFPipelineRun | where PipelineName == "dicom_etl_sync" | extend Window = tostring(parse_json(Parameters).StartTime) | summarize First = min(Start), Failed = countif(Status == "Failed"), Succeeded = countif(Status == "Succeeded") by Window | where Failed > 0 and Succeeded == 0 and First < ago(3h)'
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    // The table appears with the first run.
    skipQueryValidation: true
    actions: {
      actionGroups: [
        onCall.id
      ]
    }
  }
  dependsOn: [
    pipelineRuns
  ]
}

resource maintainBehind 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = {
  name: 'dicom-etl-maintain-behind'
  location: location
  properties: {
    description: 'No dicom_etl_maintain succeeded within two days'
    severity: 2
    enabled: true
    scopes: [
      logWorkspaceId
    ]
    evaluationFrequency: 'PT6H'
    windowSize: 'P2D'
    criteria: {
      allOf: [
        {
          query: 'ADFPipelineRun | where PipelineName == "dicom_etl_maintain" and Status == "Succeeded"'
          timeAggregation: 'Count'
          operator: 'LessThan'
          threshold: 1
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    // The table appears with the first run.
    skipQueryValidation: true
    actions: {
      actionGroups: [
        onCall.id
      ]
    }
  }
  dependsOn: [
    pipelineRuns
  ]
}
