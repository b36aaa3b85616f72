// The HTTP status that each class of nova.exception bears in its `code` (contract, annex); a class that is not here has 500.
// The API falls back to it where it has no rule of its own for the class.

package enum ExceptionCodes {
    package static func code(of className: String) -> Int { codes[className] ?? 500 }

    private static let codes: [String: Int] = {
        var codes: [String: Int] = [:]
        for (code, names) in byCode {
            for name in names.split(separator: " ") { codes[String(name)] = code }
        }
        return codes
    }()

    private static let byCode: [(Int, String)] = [
        (
            400,
            """
            AggregateMetadataKeyExists AmbiguousHostnameForMultipleInstances AttachInterfaceNotSupported \
            AttachInterfaceWithQoSPolicyNotSupported AutoDiskConfigDisabledByImage \
            BadRequirementEmulatorThreadsPolicy CPUPinningInvalid CPUPinningUnknown \
            CPUThreadPolicyConfigurationInvalid CPUUnpinningInvalid CPUUnpinningUnknown ComputeResourcesUnavailable \
            ComputeServiceUnavailable ConfigDriveInvalidValue ConsoleTypeInvalid ConsoleTypeUnavailable \
            CreateWithPortResourceRequestOldVersion DestinationDiskExists DiskInfoReadWriteFail \
            EphemeralEncryptionSecretNotFound ExtendVolumeNotSupported ExtendedResourceRequestOldCompute \
            FixedIpInvalidOnHost FloatingIpBadRequest ForbiddenPortsWithAccelerator \
            ForbiddenSharesNotConfiguredCorrectly ForbiddenSharesNotSupported ForbiddenWithAccelerators \
            ForbiddenWithRemoteManagedPorts ForbiddenWithShare HostMappingExists HostMappingNotFound ImageBadRequest \
            ImageImportImpossible ImageNUMATopologyAsymmetric ImageNUMATopologyCPUDuplicates \
            ImageNUMATopologyCPUOutOfRange ImageNUMATopologyCPUsUnassigned ImageNUMATopologyIncomplete \
            ImageNUMATopologyMemoryOutOfRange ImageNUMATopologyRebuildConflict ImageSerialPortNumberExceedFlavorValue \
            ImageSerialPortNumberInvalid ImageUnacceptable ImageVCPULimitsRangeExceeded \
            ImageVCPULimitsRangeImpossible ImageVCPUTopologyRangeExceeded InstanceAgentNotEnabled \
            InstanceEvacuateNotSupported InstanceEvacuateNotSupportedTargetState InstanceInvalidState \
            InstanceIsLocked InstanceNotReady InstanceNotRescuable InstanceNotRunning InstancePowerOffFailure \
            InstanceQuiesceNotSupported InstanceSuspendFailure InstanceUnacceptable InterfaceAttachFailedNoNetwork \
            InterfaceAttachPciClaimFailed InterfaceAttachResourceAllocationFailed InterfaceDetachFailed Invalid \
            InvalidAggregateAction InvalidAggregateActionAdd InvalidAggregateActionDelete \
            InvalidAggregateActionUpdate InvalidAggregateActionUpdateMeta InvalidArchitectureName InvalidBDM \
            InvalidBDMBootSequence InvalidBDMDiskBus InvalidBDMEphemeralSize InvalidBDMForLegacy InvalidBDMFormat \
            InvalidBDMImage InvalidBDMLocalsLimit InvalidBDMSnapshot InvalidBDMSwapSize InvalidBDMVolume \
            InvalidBDMVolumeNotBootable InvalidCPUAllocationPolicy InvalidCPUInfo InvalidCPUThreadAllocationPolicy \
            InvalidCidr InvalidConfiguration InvalidConnectionInfo InvalidDevicePath InvalidDiskFormat \
            InvalidDiskInfo InvalidEmulatorThreadsPolicy InvalidFixedIpAndMaxCountRequest InvalidHostname \
            InvalidHypervisorType InvalidHypervisorVirtType InvalidID InvalidImageConfigDrive InvalidImageFormat \
            InvalidImageRef InvalidInput InvalidInventory InvalidIpAddressError InvalidIpProtocol InvalidKeypair \
            InvalidMachineType InvalidMachineTypeUpdate InvalidMetadata InvalidMetadataSize InvalidMigrationState \
            InvalidMixedInstanceDedicatedMask InvalidNUMANodesNumber InvalidNetworkNUMAAffinity \
            InvalidPCINUMAAffinity InvalidParameterValue InvalidPortRange InvalidRequest \
            InvalidReservedMemoryPagesOption InvalidResourceClass InvalidToken InvalidVIOMMUArchitecture \
            InvalidVIOMMUMachineType InvalidVideoMode InvalidVirtualMachineMode InvalidVolume InvalidVolumeAccessMode \
            InvalidWatchdogAction InventoryInUse LibguestfsCannotReadKernel MemoryPageSizeForbidden \
            MemoryPageSizeInvalid MemoryPageSizeNotSupported MemoryPagesUnsupported \
            MultiattachNotSupportedByVirtDriver MultiattachNotSupportedOldMicroversion \
            MultiattachSwapVolumeNotSupported MultiattachToShelvedNotSupported MultiplePortsNotApplicable \
            NUMATopologyUnsupported NetworkAmbiguous NetworkInterfaceTaggedAttachNotSupported NetworkRequiresSubnet \
            NetworksWithQoSPolicyNotSupported NeutronAdminCredentialConfigurationInvalid NotSupported \
            OperationNotSupportedForMemEncryption OperationNotSupportedForSEV OperationNotSupportedForVDPAInterface \
            OperationNotSupportedForVTPM PciConfigInvalidSpec PciDeviceInvalidOwner PciDeviceInvalidStatus \
            PciDevicePFInvalidStatus PciDeviceVFInvalidStatus PciInvalidAlias PortBindingFailed PortInUse \
            PortNotUsable PortNotUsableDNS PortRequiresFixedIP PortUpdateFailed PreserveEphemeralNotSupported \
            QemuGuestAgentNotEnabled RealtimeConfigurationInvalid RealtimeMaskNotFoundOrInvalid \
            RequiredMixedInstancePolicy RequiredMixedOrRealtimeCPUMask RngDeviceNotExist SecureBootNotSupported \
            SecurityGroupCannotBeApplied SerialPortNumberLimitExceeded ServiceNotUnique ServiceTooOld \
            ServiceUnavailable SetAdminPasswdNotSupported StaleVolumeMount StatelessFirmwareRequired TokenInUse \
            TooOldComputeService TriggerCrashDumpNotSupported UEFINotSupported UnableToAutoAllocateNetwork \
            UnableToMigrateToSelf UnsupportedHardware UnsupportedHostCPUControlPolicy UnsupportedImageModel \
            UnsupportedMachineType UnsupportedPolicyException UnsupportedRPCVersion UnsupportedRescueBus \
            UnsupportedRescueDevice UnsupportedRescueImage UnsupportedVirtType VTPMOldCompute ValidationError \
            VifDetailsMissingMacvtapParameters VifDetailsMissingVhostuserSockPath VolumeBDMIsMultiAttach \
            VolumeEncryptionNotSupported VolumeExtendFailed VolumeTaggedAttachNotSupported \
            VolumeTaggedAttachToShelvedNotSupported VolumesNotRemoved
            """
        ),
        (
            401,
            """
            Unauthorized
            """
        ),
        (
            403,
            """
            BootFromVolumeRequiredForZeroDiskFlavor ExternalNetworkAttachForbidden Forbidden ImageCPUPinningForbidden \
            ImageCPUThreadPolicyForbidden ImageNUMATopologyForbidden ImagePCINUMAPolicyForbidden LockMemoryForbidden \
            TooManyDiskDevices VTPMSecretForbidden
            """
        ),
        (
            404,
            """
            AggregateHostNotFound AggregateMetadataNotFound AggregateNotFound BDMNotFound BuildRequestNotFound \
            CellMappingNotFound CellTimeout ComputeHostNotFound ConfGroupForServiceTypeNotFound ConsoleNotAvailable \
            DeviceNotFound DiskNotFound FileNotFound FixedIpNotFoundForAddress FixedIpNotFoundForInstance \
            FlavorAccessNotFound FlavorExtraSpecsNotFound FlavorNotFound FlavorNotFoundByName FloatingIpNotFound \
            FloatingIpNotFoundForAddress FloatingIpPoolNotFound HostBinaryNotFound HostNotFound ImageNotFound \
            InstanceGroupNotFound InstanceInfoCacheNotFound InstanceMappingNotFound InstanceNotFound KeypairNotFound \
            MarkerNotFound MigrationContextNotFound MigrationNotFound MigrationNotFoundByStatus NetworkNotFound \
            NetworkNotFoundForInstance NoActiveMigrationForInstance NoMoreFloatingIps NotFound NumaTopologyNotFound \
            OsInfoNotFound PciDeviceNotFound PciDeviceNotFoundById PciRequestFromVIFNotFound PortNotFound \
            ProjectQuotaNotFound ProjectUserQuotaNotFound QuotaClassNotFound QuotaNotFound RequestSpecNotFound \
            ResourceProviderNotFound SecurityGroupNotFound ServiceNotFound ShareAccessNotFound \
            ShareMappingAlreadyExists ShareNotFound ShareProtocolNotSupported SnapshotNotFound \
            VolumeAttachmentNotFound VolumeBDMNotFound VolumeBDMPathNotFound VolumeDriverNotFound \
            VolumeDriverNotSupported VolumeNotFound VolumeTypeNotFound
            """
        ),
        (
            409,
            """
            DevicePathInUse InstanceQuiesceFailed MismatchVolumeAZException NoUniqueMatch \
            SecurityGroupConnectionStateConflict UnshelveHostNotInAZ UnshelveInstanceInvalidState
            """
        ),
        (
            412,
            """
            ConstraintNotMet
            """
        ),
        (
            413,
            """
            FloatingIpLimitExceeded GroupMemberLimitExceeded KeypairLimitExceeded MetadataLimitExceeded \
            OnsetFileContentLimitExceeded OnsetFileLimitExceeded OnsetFilePathLimitExceeded OverQuota \
            PortLimitExceeded SecurityGroupLimitExceeded TooManyInstances
            """
        ),
    ]
}
