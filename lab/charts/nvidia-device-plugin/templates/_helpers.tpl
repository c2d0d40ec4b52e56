{{- define "plugin.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "plugin.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "plugin.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default (printf "v%s" .Chart.AppVersion)) -}}
{{- end }}

{{- /* Upstream's condition of its sub-chart: nfd.enabled where it is set, else gfd.enabled. */ -}}
{{- define "plugin.nfd" -}}
{{- $nfd := .Values.nfd | default dict -}}
{{- if hasKey $nfd "enabled" -}}{{ $nfd.enabled }}{{- else -}}{{ .Values.gfd.enabled }}{{- end -}}
{{- end }}

{{- define "plugin.pod" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
serviceAccountName: {{ include "plugin.fullname" . }}-service-account
terminationGracePeriodSeconds: 5
{{- range $key := list "nodeSelector" "affinity" "tolerations" }}
{{- with get $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What NVIDIA's own programs ask for where the node's GPUs are real; stand-ins ask for nothing but the name. */ -}}
{{- define "plugin.node" -}}
- {name: LD_LIBRARY_PATH, value: /run/speechops-lab/driver}
- {name: NVIDIA_DRIVER_ROOT, value: /}
- {name: DRIVER_ROOT_CTR_PATH, value: /}
- {name: PASS_DEVICE_SPECS, value: "true"}
- {name: DEVICE_LIST_STRATEGY, value: envvar}
- {name: GFD_USE_NODE_FEATURE_API, value: "false"}
- {name: USE_NODE_FEATURE_API, value: "false"}
- {name: GFD_OUTPUT_FILE, value: /etc/kubernetes/node-feature-discovery/features.d/gfd}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
