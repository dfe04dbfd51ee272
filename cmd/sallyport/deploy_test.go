package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
)

// These are the keys of Kubernetes that the manifest uses, where they belong.
type (
	manifest struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Data       map[string]string
		Spec       manifestSpec
	}
	metadata struct {
		Name   string
		Labels map[string]string
	}
	// manifestSpec is that of a Deployment, a Service, or a PodDisruptionBudget.
	manifestSpec struct {
		Replicas int
		Selector map[string]any
		Strategy struct {
			RollingUpdate struct {
				MaxUnavailable int `yaml:"maxUnavailable"`
				MaxSurge       int `yaml:"maxSurge"`
			} `yaml:"rollingUpdate"`
		}
		Template              pod
		Type                  string
		ExternalTrafficPolicy string `yaml:"externalTrafficPolicy"`
		Ports                 []struct {
			Name       string
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		MaxUnavailable int `yaml:"maxUnavailable"`
	}
	pod struct {
		Metadata metadata
		Spec     struct {
			Grace           int             `yaml:"terminationGracePeriodSeconds"`
			SecurityContext securityContext `yaml:"securityContext"`
			Containers      []container
			Volumes         []struct {
				Name      string
				ConfigMap metadata `yaml:"configMap"`
			}
		}
	}
	securityContext struct {
		RunAsNonRoot             bool                  `yaml:"runAsNonRoot"`
		RunAsUser                int                   `yaml:"runAsUser"`
		RunAsGroup               int                   `yaml:"runAsGroup"`
		SeccompProfile           struct{ Type string } `yaml:"seccompProfile"`
		AllowPrivilegeEscalation *bool                 `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool                  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	}
	container struct {
		Name, Image string
		Args        []string
		Ports       []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		Env []struct {
			Name      string
			ValueFrom struct {
				SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		}
		ReadinessProbe  probe `yaml:"readinessProbe"`
		LivenessProbe   probe `yaml:"livenessProbe"`
		Resources       struct{ Requests, Limits map[string]string }
		SecurityContext securityContext `yaml:"securityContext"`
		VolumeMounts    []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		TCPSocket struct{ Port string } `yaml:"tcpSocket"`
		Period    int                   `yaml:"periodSeconds"`
		Threshold int                   `yaml:"failureThreshold"`
	}
)

// TestKubernetes: the manifest has only keys that Kubernetes knows where it has them;
// its parts name each other; its settings and its command line are ours.
func TestKubernetes(t *testing.T) {
	file, err := os.Open("../../deploy/kubernetes/sallyport.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	parts := map[string]manifest{}
	for decoder := yaml.NewDecoder(file, yaml.Strict()); ; {
		var m manifest
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		parts[m.APIVersion+" "+m.Kind] = m
	}
	config, deployment, service := parts["v1 ConfigMap"], parts["apps/v1 Deployment"], parts["v1 Service"]
	disruption := parts["policy/v1 PodDisruptionBudget"]
	if len(parts) != 4 || len(deployment.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("there are %d parts: %v", len(parts), parts)
	}
	only := deployment.Spec.Template.Spec.Containers[0]

	settings := filepath.Join(t.TempDir(), "sallyport.yaml")
	if err := os.WriteFile(settings, []byte(config.Data["sallyport.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	if code := run([]string{"check", settings}, nil, &errs, &errs); code != 0 {
		t.Errorf("the settings: %s", errs.String())
	}
	if cmd, left, err := newRoot().Find(only.Args); err != nil || cmd.Name() != "serve" || cmd.ParseFlags(left) != nil {
		t.Errorf("no such command line: %q", only.Args)
	}
	if mount := only.VolumeMounts[0]; filepath.Join(mount.MountPath, "sallyport.yaml") != only.Args[2] || mount.Name != deployment.Spec.Template.Spec.Volumes[0].Name {
		t.Errorf("the settings are not where the command line has them: %+v", mount)
	}
	app := deployment.Spec.Template.Metadata.Labels["app"]
	for what, names := range map[string][]any{
		"labels": {app, service.Spec.Selector["app"], deployment.Spec.Selector["matchLabels"].(map[string]any)["app"], disruption.Spec.Selector["matchLabels"].(map[string]any)["app"]},
		"ports":  {only.Ports[0].Name, service.Spec.Ports[0].TargetPort, only.ReadinessProbe.TCPSocket.Port, only.LivenessProbe.TCPSocket.Port},
		"config": {config.Metadata.Name, deployment.Spec.Template.Spec.Volumes[0].ConfigMap.Name},
	} {
		if len(slices.Compact(slices.Clone(names))) != 1 || names[0] == "" {
			t.Errorf("the %s do not name each other: %q", what, names)
		}
	}
	if only.Env[0].Name != "PGPASSWORD" || only.Ports[0].ContainerPort != 1080 {
		t.Errorf("%+v", only)
	}
}

// TestHAProxy: HAProxy takes its settings.
func TestHAProxy(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs Debian's haproxy")
	}
	if out, err := exec.CommandContext(t.Context(), "/usr/sbin/haproxy", "-c", "-f", "../../deploy/haproxy/haproxy.cfg").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestAlerts: Prometheus takes the alerts, and each of them fires when it should. That
// their metrics exist, a test of internal/admin looks at.
func TestAlerts(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs Debian's prometheus")
	}
	folder := filepath.Join("..", "..", "deploy", "prometheus")
	for _, args := range [][]string{
		{"check", "rules", filepath.Join(folder, "alerts.yaml")},
		{"test", "rules", filepath.Join(folder, "alerts_test.yaml")},
		{"check", "config", "--syntax-only", filepath.Join(folder, "prometheus.yaml")},
	} {
		if out, err := exec.CommandContext(t.Context(), "/usr/bin/promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v: %s", args, err, out)
		}
	}
}
