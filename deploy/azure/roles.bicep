// The least rights: the writer reads the DICOM service and writes its own two containers, and a FHIR service where one is
// named; researchers read the shared container. az deployment group create --resource-group G --template-file roles.bicep --parameters ...
// The DICOM service and the storage account must lie in that resource group.

@description('Workspace of Azure Health Data Services')
param workspaceName string

@description('Name of the DICOM service in that workspace')
param dicomServiceName string

@description('Storage account of the lake, with a hierarchical namespace')
param storageAccountName string

@description('Container of the shared tables: lake.root')
param sharedContainerName string = 'dicom'

@description('Container of whole headers: lake.private_root. Nobody but the writer reads it.')
param privateContainerName string = 'dicom-private'

@description('Name of the FHIR service in that workspace, for dicom-etl fhir; empty: none')
param fhirServiceName string = ''

@description('Object id of the identity that runs dicom-etl')
param writerPrincipalId string

@description('Object id of the group of researchers; empty: none')
param researchersGroupId string = ''

var dicomDataReader = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'e89c7a3c-2f64-4fa1-a847-3e4c9ba4283a'
)
var storageBlobDataContributor = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
)
var storageBlobDataReader = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
)

var fhirDataContributor = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '5a1fc7df-4bf1-4951-a576-89034ee01acd'
)

resource workspace 'Microsoft.HealthcareApis/workspaces@2023-11-01' existing = {
  name: workspaceName
}

resource dicom 'Microsoft.HealthcareApis/workspaces/dicomservices@2023-11-01' existing = {
  parent: workspace
  name: dicomServiceName
}

resource fhir 'Microsoft.HealthcareApis/workspaces/fhirservices@2023-11-01' existing = if (!empty(fhirServiceName)) {
  parent: workspace
  name: empty(fhirServiceName) ? 'none' : fhirServiceName
}

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: storageAccountName
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' existing = {
  parent: account
  name: 'default'
}

resource sharedContainer 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: sharedContainerName
}

resource privateContainer 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' existing = {
  parent: blobs
  name: privateContainerName
}

resource writerReadsDicom 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: dicom
  name: guid(dicom.id, writerPrincipalId, dicomDataReader)
  properties: {
    roleDefinitionId: dicomDataReader
    principalId: writerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource writerWritesShared 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: sharedContainer
  name: guid(sharedContainer.id, writerPrincipalId, storageBlobDataContributor)
  properties: {
    roleDefinitionId: storageBlobDataContributor
    principalId: writerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource writerWritesPrivate 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: privateContainer
  name: guid(privateContainer.id, writerPrincipalId, storageBlobDataContributor)
  properties: {
    roleDefinitionId: storageBlobDataContributor
    principalId: writerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource writerWritesFhir 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(fhirServiceName)) {
  scope: fhir
  name: guid(fhir.id, writerPrincipalId, fhirDataContributor)
  properties: {
    roleDefinitionId: fhirDataContributor
    principalId: writerPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource researchersReadShared 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(researchersGroupId)) {
  scope: sharedContainer
  name: guid(sharedContainer.id, researchersGroupId, storageBlobDataReader)
  properties: {
    roleDefinitionId: storageBlobDataReader
    principalId: researchersGroupId
    principalType: 'Group'
  }
}
