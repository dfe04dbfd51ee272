package service

import "strings"

// unit is the service for systemd. Nothing in it is of the machine it is on but the
// two paths; what a machine needs otherwise belongs into a drop-in (`systemctl edit
// sallyport`). Why each line is there, docs/service.md says.
const unit = `[Unit]
Description=Sallyport, a proxy server for the edge of a network
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=60
StartLimitBurst=10

[Service]
Type=notify
ExecStart=PROGRAM serve --config CONFIG
ExecReload=PROGRAM reload --config CONFIG
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=78
WatchdogSec=30
TimeoutStartSec=90
TimeoutStopSec=60

User=sallyport
Group=sallyport
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
UMask=0077
LimitNOFILE=524288
TasksMax=infinity

RuntimeDirectory=sallyport
RuntimeDirectoryMode=0700
StateDirectory=sallyport
LogsDirectory=sallyport
StateDirectoryMode=0700

ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateDevices=yes
PrivateMounts=yes
PrivateTmp=yes
RemoveIPC=yes
KeyringMode=private
DevicePolicy=closed
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
`

// Unit returns the text of the unit for systemd.
func (p Plan) Unit() string {
	return strings.NewReplacer("PROGRAM", p.Program, "CONFIG", p.Config).Replace(unit)
}
