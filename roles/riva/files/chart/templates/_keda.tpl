{{- /* The rule set's queries, from a file that docs/generate.py makes; the words in capitals are this release's. */}}
{{- define "riva.kedaQueries" -}}
{{- $interval := int (trimSuffix "s" .Values.serviceMonitor.interval) -}}
{{- if not (regexMatch "^[0-9]+s$" .Values.serviceMonitor.interval) -}}
{{- fail (printf "serviceMonitor.interval is %s: with KEDA give it in seconds, such as 15s" .Values.serviceMonitor.interval) -}}
{{- end -}}
{{- $demand := .Values.autoscaling.demand -}}
{{- $words := dict "NAMESPACE_" .Release.Namespace "SERVICE_" (include "riva.fullname" .) -}}
{{- $_ := set $words "TRAEFIK_" .Values.autoscaling.keda.traefikNamespace -}}
{{- $_ := set $words "HORIZON_" (toString $demand.horizonSeconds) -}}
{{- $_ := set $words "SPARE_" (toString $demand.spareStreams) -}}
{{- $_ := set $words "SHARE_" (toString $demand.spareShare) -}}
{{- $_ := set $words "CHUNKS_" (toString $demand.chunksPerSecond) -}}
{{- $_ := set $words "WAKE_" (toString .Values.autoscaling.keda.wakeSeconds) -}}
{{- $_ := set $words "WINDOW_" (mul 4 $interval | toString) -}}
{{- $_ := set $words "FRESH_" (div (mul 5 $interval) 2 | toString) -}}
{{- $_ := set $words "INTERVAL_" (toString $interval) -}}
{{- $text := .Files.Get "files/keda-queries.json" -}}
{{- range $word, $value := $words -}}
{{- $text = replace $word $value $text -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- define "riva.kedaTrigger" -}}
- type: prometheus
  metricType: AverageValue
  metadata:
    serverAddress: {{ .server }}
    query: {{ .query | quote }}
    threshold: {{ .threshold | toString | quote }}
    activationThreshold: "0"
    # Nothing is no answer: scraping is broken, and the fallback holds.
    ignoreNullValues: "false"
{{- end -}}

{{- define "riva.kedaTriggers" -}}
{{- $queries := include "riva.kedaQueries" . | fromJson -}}
{{- $server := .Values.autoscaling.keda.prometheusUrl -}}
{{- $zero := eq (int .Values.autoscaling.minReplicas) 0 -}}
{{- $rest := ternary (printf " or (absent(%s) - 1)" $queries.up) "" $zero -}}
{{- $queue := ternary (printf "(%s)%s" $queries.queueTime $rest) $queries.queueTime $zero -}}
{{ include "riva.kedaTrigger" (dict "server" $server "query" $queue "threshold" .Values.autoscaling.queueTimeTargetMs) }}
{{- if .Values.autoscaling.demand.plannedStreams }}
{{- $demand := ternary (printf "(%s)%s" $queries.demand $rest) $queries.demand $zero }}
{{ include "riva.kedaTrigger" (dict "server" $server "query" $demand "threshold" .Values.autoscaling.demand.plannedStreams) }}
{{- end }}
{{- if $zero }}
{{ include "riva.kedaTrigger" (dict "server" $server "query" $queries.wakeUp "threshold" 1) }}
{{- end }}
{{- with .Values.autoscaling.keda.extraTriggers }}
{{ toYaml . }}
{{- end }}
{{- end -}}
