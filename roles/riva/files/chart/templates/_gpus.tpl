{{- /* A container's share of the pod's GPUs: by the device plugin's resource, or by the pod's claim. root, limits. */}}
{{- define "riva.gpuResources" -}}
{{- $values := .root.Values -}}
{{- if $values.resourceClaim.deviceClassName -}}
claims:
  - name: gpu
{{- with .limits }}
limits:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- else -}}
limits:
  {{- merge (dict $values.gpuResource $values.gpus) .limits | toYaml | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "riva.podClaims" -}}
{{- if .Values.resourceClaim.deviceClassName }}
resourceClaims:
  - name: gpu
    resourceClaimTemplateName: {{ include "riva.fullname" . }}
{{- end -}}
{{- end -}}

{{- /* Downloads and builds the models into the store. */}}
{{- define "riva.modelInitContainer" -}}
- name: riva-model-init
  image: "{{ .Values.modelInit.image.repository }}:{{ .Values.modelInit.image.tag | default (printf "%s-servicemaker" .Chart.AppVersion) }}"
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    {{- toYaml .Values.modelInit.command | nindent 4 }}
  {{- with .Values.modelInit.models }}
  args:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  env:
    - name: NGC_CLI_API_KEY
      valueFrom:
        secretKeyRef:
          name: {{ .Values.modelInit.apiKeySecret }}
          key: apikey
    - name: MODEL_DEPLOY_KEY
      valueFrom:
        secretKeyRef:
          name: {{ .Values.modelInit.deployKeySecret }}
          key: key
    {{- with .Values.modelInit.env }}
    {{- include "riva.envMap" . | trim | nindent 4 }}
    {{- end }}
  securityContext:
    {{- include "riva.serverSecurity" . | nindent 4 }}
  resources:
    {{- include "riva.gpuResources" (dict "root" . "limits" dict) | nindent 4 }}
  volumeMounts:
    - name: models
      mountPath: /data
{{- end -}}
